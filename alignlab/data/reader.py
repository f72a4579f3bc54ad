"""The values of one record, read as the types that a row needs.

A file type says little about types: CSV has none, Parquet fills what a message lacks with nulls,
and lists stand in all of them as texts. So a value is read for what it says, the same from every
file: the number "4" and 4, the truth values "True", true and 1, a list and its text. What does not
say what is wanted is refused.
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from alignlab.data.rows import Chat, Judgement, Refused, Text, Turn

Fields = Mapping[str, Any]
NAMES = ("role", "content"), ("from", "value")  # how messages are written: OpenAI's, ShareGPT's
ROLES = {  # ShareGPT's speakers
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "chatgpt": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(frozen=True, slots=True)
class Record:
    """One unread row: where it stands (file:line or row number) and its fields, if it has any."""

    where: str
    fields: Fields | None
    problem: str = ""  # why there are no fields


class Reader:
    """The fields of one record, read with their types checked.

    Args:
        id: The row's name.
        fields: Its columns.
        chats: The set's columns that hold conversations.
        lead: The column that shows whether the set's texts are conversations.
        whole: Whether the set's completions repeat the prompt.
        used: Gets the name of every column that is asked for.
    """

    def __init__(
        self,
        id: str,
        fields: Fields,
        *,
        chats: frozenset[str],
        lead: str,
        whole: bool,
        used: set[str],
    ) -> None:
        self.id, self.chats, self.chat, self.whole = id, chats, lead in chats, whole
        self._fields, self._used = fields, used

    def as_chat(self) -> "Reader":
        """The same, its texts read as conversations."""
        self.chat = True
        return self

    def value(self, name: str) -> Any:
        """What stands there; ``None`` where the column is absent or empty."""
        self._used.add(name)
        return self._fields.get(name)

    def given(self, name: str) -> Any:
        """The same, of a column that holds no texts: an empty text is no value, either."""
        value = self.value(name)
        return None if value == "" else value

    def plain(self, name: str) -> str:
        """A string."""
        return _as_plain(name, self._get(name))

    def turns(self, name: str) -> Chat:
        """A conversation: a list of messages, or one message."""
        return _as_turns(name, self._get(name))

    def text(self, name: str) -> Text:
        """A string or a conversation, whichever the set holds."""
        return self.turns(name) if self.chat else self.plain(name)

    def texts(self, name: str) -> tuple[Text, ...]:
        """A list of strings or of conversations, whichever the set holds."""
        values = _as_list(name, self._get(name), "a list of texts")
        return tuple((_as_turns if self.chat else _as_plain)(name, value) for value in values)

    def number(self, name: str) -> float | None:
        """A number, or ``None`` where the column is absent or empty."""
        value = self.given(name)
        if value is None:
            return None
        found = _truth(value) if isinstance(value, str) else value
        if isinstance(found, str):
            with suppress(ValueError):
                found = float(found)
        if not isinstance(found, int | float | Decimal):
            raise Refused(f"wrong type in {name!r}", f": wants a number, got {_kind(value)}")
        return _as_float(name, found)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = _as_list(name, self._get(name), "a list of numbers")
        for value in values:
            if not isinstance(value, int | float | Decimal) or math.isnan(value):
                raise Refused(f"wrong type in {name!r}", f": wants numbers, got {_kind(value)}")
        numbers = tuple(_as_float(name, value) for value in values)
        if not all(map(math.isfinite, numbers)):
            raise Refused(f"wrong type in {name!r}", ": wants finite numbers")
        return numbers

    def flags(self, name: str) -> tuple[bool, ...] | None:
        """A list of truth values, or ``None`` where the column is absent or empty."""
        given = self.given(name)
        if given is None:
            return None
        values = [_truth(v) for v in _as_list(name, given, "a list of true or false")]
        if not all(isinstance(value, bool) for value in values):
            raise Refused(f"wrong type in {name!r}", ": wants a list of true or false")
        return tuple(values)

    def flag(self, name: str) -> bool:
        """A truth value; True where the column is absent or empty."""
        value = self.given(name)
        truth = True if value is None else _truth(value)
        if not isinstance(truth, bool):
            raise Refused(f"wrong type in {name!r}", f": wants true or false, got {_kind(value)}")
        return truth

    def judgement(self, name: str) -> Judgement:
        """``desirable`` or ``undesirable``, or a truth value that says the first."""
        value = self.given(name)
        if value is None:
            raise Refused(f"missing column {name!r}")
        if value in ("desirable", "undesirable"):
            return "desirable" if value == "desirable" else "undesirable"
        truth = _truth(value)
        if not isinstance(truth, bool):
            raise Refused(
                f"wrong value in {name!r}", f": wants desirable or undesirable, got {_kind(value)}"
            )
        return "desirable" if truth else "undesirable"

    def _get(self, name: str) -> Any:
        if self.value(name) is None:
            raise Refused(f"missing column {name!r}")
        return self.value(name)


def is_chat(value: Any) -> bool:
    """Whether a value, or the text that it is, is a conversation or one message of it."""
    found = _parsed(value)
    if found is value and not isinstance(value, str):
        return isinstance(value, Sequence | Mapping)
    turns = [found] if isinstance(found, Mapping) else found
    return isinstance(turns, list) and bool(turns) and all(map(_is_message, turns))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(set(names) <= set(value) for names in NAMES)


def _parsed(value: Any) -> Any:
    """The list or object that a text is, as JSON or as Python prints it; else the value itself."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return value


def _truth(value: Any) -> Any:
    """A truth value for what says one; anything else as it is."""
    if isinstance(value, int | float | str | Decimal):
        return _TRUTH.get(str(value).strip().lower(), value)
    return value


def _as_float(name: str, value: float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError as problem:
        raise Refused(f"{name!r} is not a finite number", ": too large") from problem


def _as_plain(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"wrong type in {name!r}", f": wants a string, got {_kind(value)}")
    return value


def _as_turns(name: str, value: Any) -> Chat:
    found = _parsed(value)
    turns = [found] if isinstance(found, Mapping) else found
    return tuple(_turn(name, t) for t in _as_list(name, turns, "a list of role and content"))


def _as_list(name: str, value: Any, wants: str) -> Sequence[Any]:
    found = _parsed(value)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise Refused(f"wrong type in {name!r}", f": wants {wants}, got {_kind(value)}")
    return found


def _turn(name: str, value: Any) -> Turn:
    keys = next((keys for keys in NAMES if isinstance(value, Mapping) and keys[0] in value), None)
    if keys is not None:
        role, content = value[keys[0]], value.get(keys[1])
        more = {k: without_nulls(v) for k, v in value.items() if k not in keys}
        more = {k: v for k, v in more.items() if v not in (None, "", [], {})}
        if keys[0] == "from":
            if "content" in more:
                raise Refused(f"a turn has 'value' and 'content' in {name!r}")
            if role in ("function_call", "tool_call"):
                return _called(name, content)
            if role not in ROLES:
                raise Refused(f"unknown speaker in {name!r}", f": {_kind(role)}")
            role = ROLES[role]
        if content is None and more.get("tool_calls"):
            content, more["content"] = "", None  # some templates ask whether it is null
        if isinstance(role, str) and isinstance(content, str):
            return Turn(role, content, as_extra(more))
    raise Refused(f"wrong type in {name!r}", ": a turn needs 'role' and 'content', both strings")


def _called(name: str, content: Any) -> Turn:
    """ShareGPT's way to write a tool call: a turn of its own, whose text is the call."""
    call = _parsed(content)
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise Refused(f"wrong type in {name!r}", ": a function call needs JSON with a 'name'")
    return Turn("assistant", "", as_extra({"tool_calls": [{"type": "function", "function": call}]}))


def as_extra(more: Mapping[str, Any]) -> str:
    """What a message holds beside role and content, as a turn keeps it."""
    return json.dumps(more, ensure_ascii=False, default=str) if more else ""


def without_nulls(value: Any) -> Any:
    """The value without empty fields: Parquet gives every message all the fields of any."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nulls(item) for item in value]
    return value


def printable(name: str) -> str:
    """The name with what cannot be written as text escaped."""
    return name.encode(errors="backslashreplace").decode()


def tools_of(value: Any) -> Any:
    """The tools that a column gives a conversation: a list, or its text; ``None`` for none.

    Raises:
        Refused: Something else.
    """
    found = without_nulls(_parsed(value))
    if not found:
        return None
    if not isinstance(found, list):
        raise Refused("wrong type in 'tools'", f": wants a list of tools, got {_kind(value)}")
    return found


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
