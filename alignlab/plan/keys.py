"""Schema of the YAML files: allowed keys and values, checked when a file is read."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from alignlab.bounds import LARGEST_SEED
from alignlab.errors import ConfigError

MOST_RUNS = 2_000  # of one stage: grid points times seeds
MOST_TRIALS = 10_000  # of a sweep whose points are listed before the first of them
MOST_CHOICES = 1_000  # of one key of a sweep


DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


@dataclass(frozen=True)
class Kind:
    """What a key may hold.

    Args:
        said: Completes "must be ..." in errors.
        fits: Whether a value is of this kind.
        null: Whether null is allowed and means "not set".
    """

    said: str
    fits: Callable[[Any], bool]
    null: bool = True


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are not numbers."""
    return type(value) in (int, float) and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether it is one line of text that is not blank."""
    return isinstance(value, str) and value.strip() != "" and value.isprintable()


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(is_text, value))


def _are(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _one_or_more(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: fits(value) or (value != [] and _are(fits)(value))


def _are_seeds(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(seed) is int and 0 <= seed <= LARGEST_SEED for seed in value)
        and len(set(value)) == len(value)
    )


ANY = Kind("anything", lambda value: True)
TEXT = Kind("a word", is_text)
TEXTS = Kind("a list of words", _are(is_text))
FILES = Kind("a YAML file or a list of them", _one_or_more(is_text), null=False)
FUNCTION = Kind(
    "a function's dotted name",
    lambda value: isinstance(value, str) and DOTTED.fullmatch(value) is not None,
    null=False,
)
MAPPING = Kind("names and their values", _is_mapping)
GRID = Kind("keys and lists of values, or a list of points", _one_or_more(_is_mapping))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
POSITIVE = Kind("a number > 0", lambda value: is_number(value) and value > 0)
COUNT = Kind("a whole number > 0", lambda value: type(value) is int and value > 0)
SEED = Kind("a whole number >= 0", lambda value: type(value) is int and 0 <= value <= LARGEST_SEED)
SEEDS = Kind("a list of whole numbers >= 0, each once", _are_seeds)


def check_count(count: int, most: int, where: str) -> None:
    """Refuse more runs than anybody can have meant, before they are listed.

    Raises:
        ConfigError: ``count`` is above ``most``.
    """
    if count > most:
        raise ConfigError(
            f"{where}: {count:,} of them, more than the {most:,} that can be listed. Take fewer "
            "values or seeds."
        )


def checked(
    entry: Any, kinds: Mapping[str, Kind], where: str, *, needed: Iterable[str] = ()
) -> dict[str, Any]:
    """``entry``, all of whose keys are known and hold what they may.

    Args:
        entry: As the YAML has it.
        kinds: Key -> what it may hold.
        where: File and place, for the message.
        needed: Keys that must hold something.

    Raises:
        ConfigError: No mapping, another key, or a value of another kind.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected keys and values, got {entry!r}.")
    unknown = sorted(set(map(str, entry)) - set(kinds))
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(unknown)}. Known: {', '.join(sorted(kinds))}."
        )
    for key, value in entry.items():
        if not (kinds[key].fits(value) or (value is None and kinds[key].null)):
            raise ConfigError(f"{where}: {key} must be {kinds[key].said}, got {value!r}.")
    for key in needed:
        if entry.get(key) in (None, {}):
            raise ConfigError(f"{where}: {key!r} is missing. Add it.")
    return dict(entry)
