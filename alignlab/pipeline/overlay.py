"""YAML files as nested dicts: read them, lay one over another, set dotted keys, fill placeholders.

Nothing here imports torch: the pipeline's parent process plans a whole experiment in milliseconds.
"""

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from alignlab.errors import ConfigError

PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z][A-Za-z0-9_.-]*)\}(?!\})")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``5e-7`` is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1 and key != "<<"}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {', '.join(sorted(twice))} given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in ``path``; an empty file is an empty mapping.

    Raises:
        ConfigError: No such file, not text, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Check the path.") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise ConfigError(f"{path}: not a text file. Expected YAML.") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Check the path.") from None
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(content).__name__}.")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, key by key; lists and scalars are replaced, not joined.

    Where ``over`` names another ``class_path``, the old ``init_args`` go with the old class.
    """
    merged = dict(base)
    if "class_path" in over and over["class_path"] != base.get("class_path"):
        merged.pop("init_args", None)
    for key, value in over.items():
        merged[key] = _over(merged.get(key), value)
    return merged


def _over(old: Any, value: Any) -> Any:
    both = isinstance(old, Mapping) and isinstance(value, Mapping)
    return merge(old, value) if both else copy.deepcopy(value)


def set_dotted(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.0.c`` in a nested config; a number steps into a list that is already there.

    A mapping is merged into the mapping that stands there.

    Raises:
        ConfigError: The path runs into a scalar or past the end of a list.
    """
    here: Any = config
    *parents, last = dotted.split(".")
    try:
        for part in parents:
            if isinstance(here, dict) and here.get(part) is None:
                here[part] = {}
            here = here[_step(here, part)]
        step = _step(here, last)
        old = here.get(step) if isinstance(here, dict) else here[step]
        here[step] = _over(old, value)
    except (IndexError, TypeError, ValueError):
        raise ConfigError(f"cannot set {dotted!r}: no such place in the config.") from None


def _step(here: Any, part: str) -> str | int:
    if isinstance(here, dict):
        return part
    if isinstance(here, list):
        return int(part)
    raise TypeError(part)


def fill(value: Any, lookup: Callable[[str], Any]) -> Any:
    """``value`` with every ``{name}`` in its strings replaced by ``lookup(name)``.

    A string that is nothing but one placeholder becomes the looked-up value itself (a number stays
    a number). Doubled braces, as in chat templates, are left alone.
    """
    if isinstance(value, Mapping):
        return {key: fill(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, lookup) for item in value]
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value)
    if whole:
        return lookup(whole[1])
    return PLACEHOLDER.sub(lambda match: _as_text(lookup(match[1]), match[1], value), value)


def _as_text(found: Any, name: str, where: str) -> str:
    if isinstance(found, list):
        raise ConfigError(
            f"{where!r}: stage {name!r} has {len(found)} runs, so {{{name}}} must stand alone "
            "(it becomes the list of their folders)."
        )
    return str(found)
