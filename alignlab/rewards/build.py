"""Build a reward from ``class_path`` and ``init_args``, or from one of its short forms."""

from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from alignlab.errors import ConfigError, DataError
from alignlab.names import find
from alignlab.parser_errors import in_one_line, null_for_value
from alignlab.rewards.base import Reward
from alignlab.rewards.spec import from_text


def build_reward(spec: Mapping[str, Any] | str) -> Reward:
    """Make the reward that ``spec`` describes.

    Args:
        spec: ``{"class_path": "package.module.Class", "init_args": {...}}``, as text too, or one
            of the short forms of ``alignlab.rewards.spec``.

    Raises:
        ConfigError: No such class, arguments that its signature does not take, or not a reward.
    """
    parser, values, path = parse_reward(spec)
    try:
        reward = parser.instantiate(values).init_args
    except (ConfigError, DataError, MemoryError):
        raise
    except Exception as problem:  # whatever the user's class raises
        said = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        raise ConfigError(f"reward {path!r} cannot be made: {said}.") from problem
    if not isinstance(reward, Reward):
        raise ConfigError(f"reward {path!r}: its objects cannot be called with texts.")
    return reward


def parse_reward(spec: Mapping[str, Any] | str) -> tuple[ArgumentParser, Any, str]:
    """Parse a reward without building it: the parser, the arguments, the class's path.

    Raises:
        ConfigError: As ``build_reward``, for everything that can be checked without an object.
    """
    if isinstance(spec, str):
        spec = from_text(spec)
    keys = set(spec) if isinstance(spec, Mapping) else set()
    if not keys <= {"class_path", "init_args"} or "class_path" not in keys:
        raise ConfigError(f"a reward needs class_path and may have init_args, got {spec}.")
    path = str(spec["class_path"])
    try:
        made = find(path)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigError(
            f"reward {path!r} cannot be found: {problem}. Give its full path, such as "
            "alignlab.rewards.rule.ToySentiment."
        ) from None
    if not isinstance(made, type):
        raise ConfigError(f"reward {path!r} is not a class. Name one of alignlab.rewards.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(made, "init_args")
    try:
        values = parser.parse_object({"init_args": dict(spec.get("init_args") or {})})
    except ArgumentError as problem:
        raise ConfigError(f"reward {path!r}: {in_one_line(str(problem))}") from None
    if wrong := null_for_value(made, vars(values.get("init_args") or Namespace())):
        raise ConfigError(f"reward {path!r}: init_args.{wrong}.")
    return parser, values, path
