"""Whether a parser has read what was written: no text as a number, no null out of a word."""

from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from alignlab.errors import ConfigError


def check_meaning(given: Any, parsed: Any, where: str = "") -> None:
    """Compare a config with what a parser made of it.

    A whole number may become a float, and the path of a class its mapping.

    Args:
        given: As the YAML has it.
        parsed: The parser's.
        where: Dotted key of both.

    Raises:
        ConfigError: A value that has become another; names its key.
    """
    if isinstance(parsed, Namespace):
        parsed = vars(parsed)
    if isinstance(given, Mapping) and isinstance(parsed, Mapping):
        if "init_args" in parsed and not {"class_path", "init_args"} & given.keys():
            parsed = vars(parsed["init_args"])  # the class was left out
        for key, value in given.items():
            here = f"{where}.{key}" if where else key
            if key not in parsed:  # the parser passes over one that holds nothing
                raise ConfigError(f"unknown key {here}. Take it out.")
            check_meaning(value, parsed[key], here)
    elif isinstance(given, list) and isinstance(parsed, Sequence) and len(given) == len(parsed):
        for place, (own, other) in enumerate(zip(given, parsed, strict=True)):
            check_meaning(own, other, f"{where}.{place}")
    elif isinstance(given, str) and not isinstance(parsed, str):
        found = parsed.get("class_path") if isinstance(parsed, Mapping) else None
        is_path = given != "" and str(found).endswith(given)
        if not is_path and (_is_plain(parsed) or isinstance(parsed, (list, Mapping))):
            raise ConfigError(
                f"{where} is the text {given!r} and would be read as {_shown(parsed)}. Write it "
                "without quotes if that is meant."
            )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _shown(value: Any) -> str:
    words = {True: "true", False: "false", None: "null"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"the number {value}" if isinstance(value, (int, float)) else f"{value!r:.80}"
