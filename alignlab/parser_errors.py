"""jsonargparse's many lines in one: which key, what is wrong with it, what would do."""

import importlib
import inspect
import re

LONGEST = 400  # characters of a message that matches none of the known forms

_KEYS = re.compile(r'Parser key "([^"]+)"')
_CLASSES = re.compile(r"(?:given class_path|class_path=)\s*'([^']+)'")
_REFUSED = re.compile(r"Option '([^']+)' is not accepted")
_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_EXPECTED = re.compile(
    r"Expected an? ((?:<class '(?!NoneType)|typing\.|Union)[^.\n]*(?:\.[^\s.]+)*)"
)
_GOT = re.compile(r"(?:Got value|Given value): ([^\n]*)")
_MISSING = re.compile(r"(?:module '[^']+' has no attribute|No module named) '[^']+'")


def in_one_line(message: str) -> str:
    """``message`` of a jsonargparse error as one readable sentence."""
    where = ".init_args.".join(_KEYS.findall(message))
    if group := _GROUP.search(message):
        return f"unknown key {group[1]}.{group[2]}."
    if refused := _REFUSED.search(message):
        parent = f"{where}.init_args." if where else ""
        return f"unknown key {parent}{refused[1]}.{_accepted(message, refused[1])}"
    if missing := _MISSING.search(message):
        return f"{where}: {missing[0]}. Check the class_path."
    expected = _EXPECTED.search(message)
    if expected and where:
        got = _GOT.search(message, expected.end())
        value = re.split(r"\. Got value", got[1])[0] if got else "something else"
        return f"{where} must be {_plain(expected[1])}, got {value}."
    return " ".join(message.split())[:LONGEST]


def _plain(type_name: str) -> str:
    name = re.sub(r"<class '([^']+)'>", r"\1", type_name)
    words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
    return words.get(name, name.replace("typing.Literal", "one of "))


def _accepted(message: str, refused: str) -> str:
    """The keys that the class at fault does accept."""
    after = message.split(f"Option '{refused}' is not accepted", 1)
    inner = re.match(r"\. Got value: Namespace\(class_path='([^']+)'", after[1])
    named = [inner[1]] if inner else _CLASSES.findall(after[0])
    if not named:
        return ""
    module, _, name = named[-1].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    parameters = ", ".join(inspect.signature(found).parameters)
    return f" {name} accepts: {parameters}."
