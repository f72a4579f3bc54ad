"""Check a stage's function and arguments against its signature before any job starts."""

import inspect
import math
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from alignlab.bounds import Bound
from alignlab.errors import ConfigError
from alignlab.names import find
from alignlab.parser_errors import in_one_line
from alignlab.plan.meaning import check_meaning


def find_function(path: str, args: Mapping[str, Any]) -> Callable[..., Any]:
    """Find the function ``package.module.function``, which must accept ``out`` and ``args``.

    Raises:
        ConfigError: The function does not exist, or takes other arguments.
    """
    try:
        function: Callable[..., Any] = find(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"call {path!r} cannot be found: {error}. Check the dotted name of the function."
        ) from None
    try:
        inspect.signature(function).bind(out=Path(), **args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"call {path!r}: {error}. Check the stage's args.") from None
    return function


def check_call(path: str, args: Mapping[str, Any]) -> None:
    """Check names, types and bounds of a stage's arguments, and the rewards among them.

    Raises:
        ConfigError: The function does not exist, or does not accept these arguments.
    """
    function = find_function(path, args)
    where = f"call {path!r}: args"
    hints = _hints(function)
    given = {name: value for name, value in args.items() if name in hints}
    try:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_function_arguments(function, skip={"out"}, fail_untyped=False)
    except Exception:  # a user's function may have types that the parser does not know
        parser = None
    if parser is not None:
        try:
            parsed = parser.parse_object(given)
        except ArgumentError as error:
            raise ConfigError(f"{where}: {in_one_line(str(error))}") from None
        check_meaning(given, parsed, where)
    for name, value in given.items():
        for wanted in _refusals(hints[name], value):
            raise ConfigError(f"{where}.{name} must be {wanted}, got {_shown(value)}.")
        _check_rewards(value, f"{where}.{name}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # names that are imported for the type checker only
        return {}
    kinds = inspect.signature(function).parameters
    return {name: hint for name, hint in hints.items() if name in kinds and name != "out"}


def _refusals(hint: Any, value: Any) -> Iterator[str]:
    """Say how ``value`` differs from the annotated type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [each for each in hint.__metadata__ if isinstance(each, Bound)]
        yield from _refusals(inner[0], value)
        yield from (bound.said for bound in bounds if value is not None and not bound.fits(value))
    elif isinstance(value, float) and not math.isfinite(value):
        yield "a finite number"
    elif value is None:
        if not _takes_null(hint):
            yield "given, or left out for its default"
    elif NoneType in inner:
        (hint, *others) = [each for each in inner if each is not NoneType]
        if not others:
            yield from _refusals(hint, value)
    elif origin in (list, tuple, Sequence) and isinstance(value, list):
        for each, item in zip(
            inner if origin is tuple else inner * len(value), value, strict=False
        ):
            yield from _refusals(each, item)


def _takes_null(hint: Any) -> bool:
    if hint in (Any, object, NoneType) or isinstance(hint, TypeVar):
        return True
    return get_origin(hint) in (Union, UnionType) and any(map(_takes_null, get_args(hint)))


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def _check_rewards(value: Any, where: str) -> None:
    if isinstance(value, Mapping) and "class_path" in value:
        from alignlab.rewards.build import parse_reward  # torch takes seconds to import

        try:
            parse_reward(value)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
