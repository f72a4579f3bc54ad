"""Read the short forms of a reward, such as ``0.7*{judge} + 0.3*my_reward.py:score``.

The same forms work in YAML and on every command line: they are replaced by ``class_path`` and
``init_args`` when a file or an option is read, so no other code has to handle them. This module is
fast to import: it does not need torch.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError

# Whose values are rewards, or lists of them, wherever they stand.
KEYS = ("reward", "proxy", "gold", "watchdog", "members")
NAMED = ("proposals", "policies", "against", "variants")  # whose keys are names that users choose
FORMS = (
    "Write length, regex:PATTERN, my_reward.py:FUNCTION, package.module.Class, the folder or hub "
    "id of a scorer, or a sum such as 0.7*FIRST + 0.3*SECOND."
)
GIVEN, RULE = "alignlab.rewards.given", "alignlab.rewards.rule"
_SIGN = re.compile(r"\s+([+-])\s+")
_WEIGHTED = re.compile(r"(-?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*(.+)", re.DOTALL)
_FUNCTION = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_PLACE = re.compile(r"\{[A-Za-z_][\w.-]*\}")


def as_class(text: str) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of the reward that ``text`` describes.

    Raises:
        ConfigError: ``text`` has none of the known forms.
    """
    found = _read(text)
    if found is None:
        raise ConfigError(f"reward {text!r} is none of the known forms. {FORMS}")
    return found


def with_classes(value: Any) -> Any:
    """``value``, nested like YAML, with short forms of rewards replaced by classes.

    A reward is the value of one of ``KEYS``, which may be the last part of a dotted key. A text
    there that has none of the forms is not changed, and the parser may refuse it: the metrics of a
    sweep have a key ``reward``, too. The keys below one of ``NAMED`` are names, not arguments: a
    policy may be called ``gold``.
    """
    if isinstance(value, list):
        return [with_classes(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _with_classes(str(key).rpartition(".")[2], item) for key, item in value.items()}


def _with_classes(name: str, value: Any) -> Any:
    if name in KEYS:
        return _with_class(value)
    if name in NAMED and isinstance(value, dict):
        return {key: with_classes(item) for key, item in value.items()}
    return with_classes(value)


def options_with_classes(words: Iterable[str]) -> list[str]:
    """The words of a command line, with short forms of rewards in its options replaced by classes.

    As ``with_classes``, for ``--probe.reward SPEC`` and ``--probe.reward=SPEC``.
    """
    done: list[str] = []
    named = False  # whether the word before names a reward
    for word in words:
        option, equals, text = word.partition("=") if word.startswith("--") else ("", "", word)
        found = _read(text) if named or (equals and _names_reward(option)) else None
        done.append(word if found is None else option + equals + json.dumps(found))
        named = not equals and word.startswith("--") and _names_reward(word)
    return done


def _names_reward(option: str) -> bool:
    return option.removeprefix("--").rpartition(".")[2] in KEYS


def _with_class(value: Any) -> Any:
    if isinstance(value, list):  # the values of a grid or a sweep
        return [_with_class(item) for item in value]
    found = _read(value) if isinstance(value, str) else None
    return with_classes(value) if found is None else found


def _read(text: str) -> dict[str, Any] | None:
    """The class of ``text``; ``None`` if it has none of the forms.

    Raises:
        ConfigError: A part of a sum has none of the forms, or a pattern or file is misspelt.
    """
    text = text.strip()
    if text.startswith(("{", "[")) and not _PLACE.match(text):
        return None  # YAML, which the parser reads
    first, *rest = _SIGN.split(text)
    parts = [("+", first), *zip(rest[::2], rest[1::2], strict=True)]
    weights, rewards = [], []
    for sign, part in parts:
        weighted = _WEIGHTED.fullmatch(part)
        weight = float(weighted[1].replace(" ", "")) if weighted else 1.0
        name = weighted[2] if weighted else part
        found = _one(name)
        if found is None:
            if len(parts) == 1 and weighted is None:
                return None
            raise ConfigError(f"reward {text!r}: {name!r} is none of the known forms. {FORMS}")
        weights.append(-weight if sign == "-" else weight)
        rewards.append(found)
    if weights == [1.0]:
        return rewards[0]
    return _made(f"{GIVEN}.WeightedSum", rewards=rewards, weights=weights)


def _one(name: str) -> dict[str, Any] | None:
    if name == "length":
        return {"class_path": f"{RULE}.Length"}
    if name.startswith("regex:"):
        try:
            re.compile(pattern := name.removeprefix("regex:"))
        except re.error as problem:
            raise ConfigError(f"reward {name!r}: not a regular expression: {problem}.") from None
        return _made(f"{RULE}.Matches", pattern=pattern)
    if function := _FUNCTION.fullmatch(name):
        return _made(f"{GIVEN}.FunctionReward", file=function[1], name=function[2])
    if name.endswith(".py"):
        raise ConfigError(f"reward {name!r}: name the function in the file, as in {name}:score.")
    if "/" in name or _PLACE.match(name):
        return _made(f"{GIVEN}.Scorer", path=name)
    if _CLASS.fullmatch(name):
        return {"class_path": name}
    return _made(f"{GIVEN}.Scorer", path=f"./{name}") if Path(name).is_dir() else None


def _made(path: str, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def from_text(text: str) -> Mapping[str, Any]:
    """The reward that an option such as ``--reward`` of a command gives: a short form, or YAML.

    Raises:
        ConfigError: ``text`` is neither.
    """
    if not (text.lstrip().startswith("{") and "class_path" in text):
        return as_class(text)
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ConfigError(f"reward {text!r}: not YAML: {' '.join(str(problem).split())}.") from None
    made: Mapping[str, Any] = with_classes(found)
    return made
