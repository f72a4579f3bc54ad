"""Check that a parser kept the values as written: no text became a number, no word a null."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from alignlab.errors import ConfigError
from alignlab.plan import overlay


def check_words(words: Sequence[str], parsed: Namespace) -> None:
    """Check the files of a command line, except keys that its options set.

    Args:
        words: Such as ``["--config", "stage.yaml", "--model.beta", "0.1"]``.
        parsed: The parser's result.

    Raises:
        ConfigError: The parser changed a value of a file.
    """
    options = [word.removeprefix("--").split("=", 1) for word in words if word.startswith("--")]
    files = [rest[0] for name, *rest in options if name == "config" and rest]
    files += [value for word, value in pairwise(words) if word == "--config"]
    given: dict[str, Any] = {}
    for file in files:
        given = overlay.merge(given, overlay.read_yaml(Path(file)))
    changed = {part for name, *_ in options if name != "config" for part in _last_two(name)}
    check_meaning(given, parsed, but=changed, whole=len(files) == 1 and not changed)


def _last_two(name: str) -> list[str]:
    """The key that an option sets; with ``class_path``, also all keys below it."""
    parts = name.split(".")
    return parts[-2:] if parts[-1] == "class_path" else parts[-1:]


def check_meaning(
    given: Any, parsed: Any, where: str = "", *, but: Collection[str] = (), whole: bool = True
) -> None:
    """Compare a config with what a parser made of it.

    A whole number may become a float, and the path of a class its mapping.

    Args:
        given: The value in the YAML.
        parsed: The parser's value.
        where: Dotted key of both.
        but: Keys that something else has set.
        whole: Every key of the config has to be among the parser's.

    Raises:
        ConfigError: The parser changed a value; names its key.
    """
    if isinstance(parsed, Namespace):
        parsed = vars(parsed)
    if isinstance(given, Mapping) and isinstance(parsed, Mapping):
        if "init_args" in parsed and not {"class_path", "init_args"} & given.keys():
            parsed = vars(parsed["init_args"])  # the class was left out
        for key, value in given.items():
            here = f"{where}.{key}" if where else key
            if whole and key not in parsed:  # the parser skips an empty one
                raise ConfigError(f"unknown key {here}. Take it out.")
            if key in parsed and key not in but:
                check_meaning(value, parsed[key], here, but=but, whole=whole)
    elif isinstance(given, list) and isinstance(parsed, Sequence) and len(given) == len(parsed):
        for place, (own, other) in enumerate(zip(given, parsed, strict=True)):
            check_meaning(own, other, f"{where}.{place}", but=but, whole=whole)
    elif isinstance(given, str) and not isinstance(parsed, str):
        _check_text(given, parsed, where)


def _check_text(given: str, parsed: Any, where: str) -> None:
    found = parsed.get("class_path") if isinstance(parsed, Mapping) else None
    is_path = given != "" and str(found).endswith(given)
    if not is_path and (_is_plain(parsed) or isinstance(parsed, (list, tuple, Mapping))):
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
