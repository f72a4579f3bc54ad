"""YAML files as nested dicts: read them, merge them, set dotted keys, fill placeholders.

Nothing here imports torch: the pipeline's parent process plans a whole experiment in milliseconds.
"""

import copy
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from alignlab.errors import ConfigError
from alignlab.names import present_in
from alignlab.rewards.spec import with_classes

PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z][A-Za-z0-9_.-]*)\}(?!\})")


LARGEST_FILE = 2**18  # bytes; a config is a few pages, and reading this much takes seconds
LARGEST_TREE = 100_000  # values in all, aliases written out
DEEPEST = 40  # levels
LARGEST_NUMBER = 2**63  # of whole numbers, as in every table that they are written to
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL and halves of characters
NAN = re.compile(r"\.(?:nan|NaN|NAN)")
MISREAD = {  # plain words that YAML 1.1 reads as something that few who write them mean
    "timestamp": ("a date", re.compile(r"\d{4}-\d\d?-\d\d?(?:[Tt \t].*)?")),
    "int": (
        "a number to base 8 or 60",
        re.compile(r"[-+]?(?:0[0-7_]+|\d[\d_]*(?::[0-5]?\d)+)"),
    ),
    "float": ("a number to base 60", re.compile(r"[-+]?\d[\d_]*(?::[0-5]?\d)+\.[\d_]*")),
    "bool": ("a switch", re.compile("yes|no|on|off", re.IGNORECASE)),
}


class _Loader(yaml.SafeLoader):
    """YAML as people write it: ``5e-7`` is a number, and what is easily misread is an error.

    Errors are also a key that is given twice, a date, numbers to base 8 or 60, and keys that are
    neither all text nor all whole numbers.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[int] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node; check values without quotes as the file spells them."""
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and node.style is None:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            what, pattern = MISREAD.get(kind, ("", NAN))
            if kind in MISREAD and pattern.fullmatch(node.value):
                raise _at(
                    node,
                    f"{node.value} would be read as {what}; put it in quotes if it is text, else "
                    "write a plain number, true or false",
                )
            if kind == "float" and _is_beyond(node.value):
                raise _at(node, f"{node.value} is not a number, or too large; write a finite one")
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check a mapping's own keys, before those of ``<<`` are added."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        found: set[str] = set()
        whole = {key.tag for key, _ in node.value} == {"tag:yaml.org,2002:int"}  # steps, say
        for key, _ in node.value:
            of_text = whole or key.tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
            if not of_text or not isinstance(key, yaml.ScalarNode):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "of several values"
                raise _at(key, f"key {shown} is not text; put it in quotes")
            if key.value in found:
                raise _at(key, f"key {key.value} given twice")
            found.add(key.value)


def _at(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _is_beyond(word: str) -> bool:
    """Whether a plain word is not-a-number, or too large for a float."""
    digits = "inf" not in word.lower() and ":" not in word
    return NAN.fullmatch(word) is not None or (digits and math.isinf(float(word.replace("_", ""))))


class _Dumper(yaml.SafeDumper):
    """Writes YAML that ``_Loader`` reads back unchanged: the text ``5e-7`` goes in quotes."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value in full instead of an alias."""
        return True


for _words in (_Loader, _Dumper):
    _words.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+0123456789."),
    )


def write_yaml(content: Mapping[str, Any]) -> str:
    """``content`` as text that ``read_yaml`` reads back."""
    text: str = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in ``path``; an empty file is an empty mapping.

    Aliases and ``<<`` are expanded: no two places of the result share an object. Old names of code
    that has moved are replaced by its present names, and short forms of rewards by their classes.

    Raises:
        ConfigError: No such file, not text, not YAML, not a mapping, or a value that is easily
            misread.
    """
    text = _text(path)
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
        if content is None:
            return {}
        if not isinstance(content, dict):
            raise ConfigError(f"expected keys and values, got {type(content).__name__}.")
        written_out: dict[str, Any] = present_in(_written_out(content, 0, itertools.count(1)))
        meant: dict[str, Any] = with_classes(written_out)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: {TOO_DEEP}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValueError:  # Python reads no whole number of thousands of digits
        raise ConfigError(f"{path}: {TOO_LARGE}") from None
    return meant


def _problem(error: yaml.YAMLError) -> str:
    """The parser's message with the line number."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}."
    return " ".join(str(error).split())


TOO_LARGE = "a whole number of more than 64 bits. Write a smaller one."
TOO_DEEP = f"nested more than {DEEPEST} levels deep, or an alias inside itself. Make it flatter."


def _text(path: Path) -> str:
    try:
        if path.stat().st_size <= LARGEST_FILE:
            return path.read_text(encoding="utf-8-sig")
        problem = (
            f"more than the {LARGEST_FILE:,} bytes that a config may have. Check the path, or keep "
            "data in files of their own."
        )
    except FileNotFoundError:
        problem = "no such file. Check the path."
    except UnicodeDecodeError:
        problem = "not a text file. Expected YAML in UTF-8."
    except OSError as error:  # a folder, say
        problem = f"{error.strerror}. Check the path."
    except ValueError as error:  # a NUL in the path
        problem = f"{error}. Check the path."
    raise ConfigError(f"{str(path)[:200]}: {problem}")


def _written_out(value: Any, depth: int, count: Iterator[int]) -> Any:
    if depth > DEEPEST:
        raise ConfigError(TOO_DEEP)
    if next(count) > LARGEST_TREE:
        raise ConfigError(
            f"more than {LARGEST_TREE:,} values, aliases written out. Keep data in files of their "
            "own."
        )
    if isinstance(value, dict):
        return {_as_it_is(key): _written_out(item, depth + 1, count) for key, item in value.items()}
    if isinstance(value, list):
        return [_written_out(item, depth + 1, count) for item in value]
    return _as_it_is(value)


def _as_it_is(value: Any) -> Any:
    """Return a number, text, bool or null, if every file of a run can hold it."""
    if value is not None and type(value) not in (bool, int, float, str):
        raise ConfigError(f"a value of type {type(value).__name__}; write numbers, words or lists.")
    if type(value) is int and abs(value) >= LARGEST_NUMBER:
        raise ConfigError(TOO_LARGE)
    if isinstance(value, str) and NO_TEXT.search(value):
        raise ConfigError(f"{value[:40]!r} holds a character that is not valid text. Take it out.")
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` merged into ``base``, key by key; lists and scalars are replaced, not joined.

    If ``over`` names another ``class_path``, the old class's ``init_args`` are dropped. If ``base``
    names no class, its ``init_args`` apply to the class that ``over`` names.
    """
    merged = dict(base)
    if "class_path" in over and base.get("class_path") not in (None, over["class_path"]):
        merged.pop("init_args", None)
    for key, value in over.items():
        merged[key] = _over(merged.get(key), value)
    return merged


def _over(old: Any, value: Any) -> Any:
    both = isinstance(old, Mapping) and isinstance(value, Mapping)
    return merge(old, value) if both else copy.deepcopy(value)


def set_dotted(config: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``a.b.0.c`` in a nested config; a number steps into a list that is already there.

    A mapping is merged into the mapping that is already there.

    Raises:
        ConfigError: The path runs into a scalar or past the end of a list.
    """
    here: Any = config
    *parents, last = dotted.split(".")
    try:
        for part in parents:
            if isinstance(here, dict) and here.get(part) is None:
                here[part] = {}
            here = here[part if isinstance(here, dict) else int(part)]
        step = last if isinstance(here, dict) else int(last)
        old = here.get(step) if isinstance(here, dict) else here[step]
        here[step] = _over(old, value)
    except (IndexError, TypeError, ValueError):
        raise ConfigError(f"cannot set {dotted!r}: no such place in the config.") from None


def key_and_value(setting: str, said: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``, the value as YAML spells it.

    Args:
        setting: What an option gave.
        said: The error's text, if it is not a setting.

    Raises:
        ConfigError: No key, no ``=``, or a value that is not YAML.
    """
    key, equals, text = setting.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        equals = ""
    if not (key and equals):
        raise ConfigError(said)
    return key.strip(), value


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
