"""Turn jsonargparse's errors into one line: the key, the problem, and what to do."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from alignlab.names import find

LONGEST = 400  # characters of a message that matches none of the known forms

_KEYS = re.compile(r'Parser key "([^"]+)"')
_CLASSES = re.compile(r"(?:given class_path|class_path=)\s*'([^']+)'")
_REFUSED = re.compile(r"Option '([^']+)' is not accepted")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: --([^\s=]+)")
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_EXPECTED = re.compile(
    r"Expected an? ((?:<class '(?!NoneType)|typing\.|Union)[^.\n]*(?:\.[^\s.]+)*)"
)
_GOT = re.compile(r"(?:Got value|Given value): ([^\n]*)")
_MISSING = re.compile(r"(?:module '[^']+' has no attribute|No module named) '[^']+'")
_OTHER_CLASS = re.compile(r"Import path (\S+) does not correspond to a subclass of (\w+)")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NOISE = re.compile(
    r"""- \s Expected \s an? \s (?:<class \s 'NoneType'>|path \s but) .*
    | Does \s not \s validate .* | Subtypes: .* | Errors: | Given \s value .*
    | - \s Not \s a \s valid \s subclass .* | Subclass \s types \s expect .*
    | - \s a \s (?:class \s path|dict) .* | (?:-\s)?Problem \s with \s given .* | Parser \s key .*
    """,
    re.VERBOSE,
)


def in_one_line(message: str, options: Sequence[str] = ()) -> str:
    """``message`` of a jsonargparse error as one readable sentence.

    Args:
        message: The error's text.
        options: Names of the command's own options, such as ``trainer.max_steps``. The nearest is
            suggested for an unknown option.
    """
    keys = _KEYS.findall(message)
    where = ".init_args.".join(keys)
    if group := _GROUP.search(message):
        return _unknown(f"{group[1]}.{group[2]}", [], options)
    if refused := _REFUSED.search(message) or (keys and _UNRECOGNIZED.search(message)):
        name, accepted = _accepted(message, refused[0])
        wrong = refused[1].partition(".")[0]
        said = _unknown(f"{where}.init_args.{wrong}" if where else wrong, accepted, options)
        return f"{said} {name} accepts: {', '.join(accepted)}." if accepted else said
    if missing := _MISSING.search(message):
        extra = "'bitsandbytes'" in missing[0]
        do = (
            "Install it with: pip install 'alignlab[quantised]'"
            if extra
            else "Check the class_path"
        )
        return f"{where}{': ' if where else ''}{missing[0]}. {do}."
    return _wrong_value(message, where, options)


def _wrong_value(message: str, where: str, options: Sequence[str]) -> str:
    message = _of_the_last_key(message)
    if where and (required := _REQUIRED.search(message)):
        names = ", ".join(f"{where}.init_args.{name}" for name in required[1].split(", "))
        return f"{names} must be given (it is left out or null)."
    if other := _OTHER_CLASS.search(message):
        return f"{where}.class_path: {other[1]} is no {other[2]}. Name a class that is one."
    expected = list(_EXPECTED.finditer(message))
    if expected and where:
        got = _GOT.search(message, expected[-1].end())
        value = re.split(r"\. Got value", got[1])[0] if got else "something else"
        value = "null" if value == "None" else value
        return f"{where} must be {_any_of(each[1] for each in expected)}, got {value}."
    if where and (unknown := _NO_CLASS.search(message)):
        return f"{where}: no class {unknown[1]!r}. Give its full path, package.module.Class."
    if unknown := _UNRECOGNIZED.search(message):
        return f"{' '.join(message.split())}{_nearest(unknown[1], options)}"
    lines = [line.strip() for line in message.split("\n") if line.strip()]
    telling = [line.removeprefix("- ") for line in lines if not _NOISE.fullmatch(line)]
    said = f"{where}: {' '.join(telling)}" if where and telling else " ".join(lines)
    return said[:LONGEST]


def _of_the_last_key(message: str) -> str:
    """The part of the message about the innermost key, without other types of its class."""
    before, heading, rest = message.rpartition("Parser key ")
    line = before.rpartition("\n")[2]
    deeper = " " * (len(line) - len(line.lstrip()) + 1)
    title, *lines = rest.split("\n")
    own = takewhile(lambda line: not line or line.startswith(deeper), lines)
    return "\n".join([heading + title, *own])


def null_for_value(found: Callable[..., Any], arguments: Mapping[str, Any]) -> str | None:
    """The message about an argument of a class that is ``None`` although its type forbids it."""
    try:
        hints = get_type_hints(found.__init__)
    except Exception:  # a class from elsewhere may name types that are not there
        return None
    for name, parameter in inspect.signature(found).parameters.items():
        hint = hints.get(name, Any)
        null = name in arguments and arguments[name] is None
        if null and parameter.default is not None and not _takes_none(hint):
            wanted = plain_type(hint.__name__ if isinstance(hint, type) else str(hint))
            return f"{name} must be {wanted}, got null"
        inner = getattr(arguments.get(name), "__dict__", {})  # a group without a class_path
        wrong = inner and isinstance(hint, type) and null_for_value(hint, inner)
        if wrong and "class_path" not in inner:
            return f"{name}.{wrong}"
    return None


def _takes_none(hint: Any) -> bool:
    if hint in (Any, None, NoneType, object) or isinstance(hint, TypeVar):
        return True
    return any(each in (None, NoneType, Any) for each in get_args(hint))


def plain_type(name: str) -> str:
    """The name of a type as a reader calls it, such as ``a number``."""
    name = re.sub(r"<class '([^']+)'>", r"\1", name)
    words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
    return words.get(name, name.replace("typing.Literal", "one of "))


def _any_of(types: Iterable[str]) -> str:
    names = list(dict.fromkeys(map(plain_type, types)))
    if {"a number", "a whole number"} <= set(names):
        names.remove("a whole number")
    return " or ".join(names)


def _unknown(key: str, accepted: Sequence[str], options: Sequence[str]) -> str:
    """The message about an unknown ``key``, with the most similar one."""
    if key == "trainer.callbacks.init_args.0":  # where older stage files had the probe
        return (
            "unknown key trainer.callbacks.0. The probe's settings are now keys of probe, such as "
            "probe.samples."
        )
    own = key.rpartition(".")[2] if accepted else key
    return f"unknown key {key}{_nearest(own, accepted or options) or '.'}"


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {found[0]}?" if found else ""


def _accepted(message: str, refused: str) -> tuple[str, list[str]]:
    """The class at fault and the keys that it does accept."""
    before, _, after = message.partition(refused)
    inner = re.match(r"\. Got value: Namespace\(class_path='([^']+)'", after)
    named = [inner[1]] if inner else _CLASSES.findall(before)
    if not named:
        return "", []
    try:
        found = find(named[-1])
        return named[-1].rpartition(".")[2], list(inspect.signature(found).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):  # no module, or not in Python
        return "", []
