"""The values of one record, read as the types that a row needs.

File formats disagree on types: CSV has none, Parquet fills missing fields of a message with nulls,
and all of them may hold a list as text. So a value is read for its meaning, the same from every
file: the number "4" or 4, the truth values "True", true or 1, a list or its text. A value that does
not mean what is wanted is refused.
"""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from alignlab.data.rows.nested import as_list, as_turns, shown
from alignlab.data.rows.values import Chat, Fields, Refused, Text

_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


@dataclass(slots=True)
class Reader:
    """The fields of one record, read with their types checked."""

    columns: tuple[str, ...]  # those of Row.COLUMNS that the rows of the set are read from
    chats: frozenset[str]  # columns that hold conversations in most rows of the set
    chat: bool  # whether the texts are read as conversations
    whole: bool  # whether completions repeat the prompt
    used: set[str]  # gets the name of every column that is asked for
    id: str = ""  # the row's name
    fields: Fields = field(default_factory=dict)  # the record

    def as_chat(self) -> "Reader":
        """This reader for a data set whose texts are conversations."""
        self.chat = True
        return self

    def value(self, name: str) -> Any:
        """The value of a column; ``None`` where the column is absent or empty."""
        self.used.add(name)
        return self.fields.get(name)

    def given(self, name: str) -> Any:
        """The value of a column of numbers or lists, where an empty text counts as absent."""
        value = self.value(name)
        return None if value == "" else value

    def plain(self, name: str) -> str:
        """A string."""
        return _as_plain(name, self._get(name))

    def turns(self, name: str) -> Chat:
        """A conversation: a list of messages, or one message."""
        return as_turns(name, self._get(name))

    def text(self, name: str) -> Text:
        """A string or a conversation, whichever the set holds."""
        return self.turns(name) if self.chat else self.plain(name)

    def prompt_and(self, *names: str) -> list[Text]:
        """The prompt and the completions in these columns, which may repeat it in the source."""
        prompt, found = self.text("prompt"), [self.text(name) for name in names]
        if self.whole:
            if any(whole[: len(prompt)] != prompt for whole in found):
                raise Refused("prompt of the pair is not shared")
            found = [whole[len(prompt) :] for whole in found]
        return [prompt, *map(self.reply, names, found)]

    def reply(self, name: str, text: Text) -> Text:
        """The text; a conversation must start with the assistant's turn."""
        if not isinstance(text, str) and (not text or text[0].role != "assistant"):
            got = f", but with {text[0].role!r}" if text else ""
            raise Refused("completion does not start with an assistant turn", f" in {name!r}{got}")
        return text

    def copied_prompt(self) -> str | None:
        """The plain prompt beside whole conversations, which is a copy of their question."""
        if not self.chat or "prompt" not in self.columns or "prompt" in self.chats:
            return None
        prompt = self.value("prompt")
        return prompt if isinstance(prompt, str) else None

    def texts(self, name: str) -> tuple[Text, ...]:
        """A list of strings or of conversations, whichever the set holds."""
        values = as_list(name, self._get(name), "a list of texts")
        return tuple((as_turns if self.chat else _as_plain)(name, value) for value in values)

    def number(self, name: str) -> float | None:
        """A number, or ``None`` where the column is absent or empty."""
        value = self.given(name)
        return None if value is None else _as_number(name, value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = as_list(name, self._get(name), "a list of numbers")
        for value in values:
            if not isinstance(value, int | float | Decimal) or math.isnan(value):
                raise Refused(f"wrong type in {name!r}", f": wants numbers, got {shown(value)}")
        numbers = tuple(_as_float(name, value) for value in values)
        if not all(map(math.isfinite, numbers)):
            raise Refused(f"wrong type in {name!r}", ": wants finite numbers")
        return numbers

    def flags(self, name: str) -> tuple[bool, ...] | None:
        """A list of truth values, or ``None`` where the column is absent or empty."""
        given = self.given(name)
        if given is None:
            return None
        values = [_truth(v) for v in as_list(name, given, "a list of true or false")]
        if not all(isinstance(value, bool) for value in values):
            raise Refused(f"wrong type in {name!r}", ": wants a list of true or false")
        return tuple(values)

    def flag(self, name: str) -> bool:
        """A truth value; True where the column is absent or empty."""
        truth = True if (value := self.given(name)) is None else _truth(value)
        if not isinstance(truth, bool):
            raise Refused(f"wrong type in {name!r}", f": wants true or false, got {shown(value)}")
        return truth

    def either(self, name: str, yes: str, no: str) -> bool:
        """Whether a column holds ``yes`` rather than ``no``; it may also hold a truth value."""
        value = self.given(name)
        if value is None:
            raise Refused(f"missing column {name!r}")
        truth = value == yes if value in (yes, no) else _truth(value)
        if not isinstance(truth, bool):
            allowed = f"allowed are {yes}, {no}, true, false, 1 and 0"
            raise Refused(f"wrong value in {name!r}: {allowed}", f"; got {shown(value)}")
        return truth

    def _get(self, name: str) -> Any:
        if (value := self.value(name)) is None:
            raise Refused(f"missing column {name!r}")
        return value


def _truth(value: Any) -> Any:
    """Convert a word or number for true or false to a truth value; return others unchanged."""
    if isinstance(value, int | float | str | Decimal):
        return _TRUTH.get(str(value).strip().lower(), value)
    return value


def _as_number(name: str, value: Any) -> float:
    found = _truth(value) if isinstance(value, str) else value
    if isinstance(found, str):
        with suppress(ValueError):
            found = float(found)
    if not isinstance(found, int | float | Decimal):
        raise Refused(f"wrong type in {name!r}", f": wants a number, got {shown(value)}")
    return _as_float(name, found)


def _as_float(name: str, value: float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError as problem:
        raise Refused(f"{name!r} is not a finite number", ": too large") from problem


def _as_plain(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"wrong type in {name!r}", f": wants a string, got {shown(value)}")
    return value
