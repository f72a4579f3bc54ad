"""What rows are made of: texts and conversations, with their checks, and records to be read."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One unread row: its place (file:line or row number) and its fields, if it has any."""

    where: str
    fields: Fields | None
    problem: str = ""  # why there are no fields


@dataclass(frozen=True, slots=True)
class Changed:
    """Records with changed fields, which can be read as often as the records can."""

    records: Iterable[Record]
    change: Callable[[Fields], Fields]

    def __iter__(self) -> Iterator[Record]:
        """Change one after another; a record that could not be read stays as it is."""
        return (replace(r, fields=r.fields and self.change(r.fields)) for r in self.records)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation: who says what.

    ``extra`` is what else the message holds, as JSON: its tool calls, its reasoning, a name; and of
    a conversation's first turn the ``tools`` that may be called. Chat templates get it.
    """

    role: str
    content: str
    extra: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The message's fields other than role and content."""
        return json.loads(self.extra) if self.extra else {}

    def with_extra(self, name: str, value: Any) -> "Turn":
        """The turn with one more field."""
        return replace(self, extra=json.dumps(self.fields | {name: value}, ensure_ascii=False))

    def without(self, name: str) -> "Turn":
        """The turn without a field."""
        left = {key: value for key, value in self.fields.items() if key != name}
        return replace(self, extra=json.dumps(left, ensure_ascii=False) if left else "")

    @property
    def says_nothing(self) -> bool:
        """Whether there is neither text nor a call in it."""
        return not self.content.strip() and not {"tool_calls", "function_call"} & set(self.fields)


Chat = tuple[Turn, ...]
Text = str | Chat


class Refused(Exception):
    """A row that cannot be used: ``reason`` is counted, ``detail`` is this row's own."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason + detail)
        self.reason, self.detail = reason, detail


def check_completion(name: str, text: Text) -> None:
    """Refuse a completion, or an assistant's turn in it, without content."""
    check_text(name, text)
    if isinstance(text, str):
        empty = not text.strip()
    else:  # a conversation is as empty as its last turn
        silent = [turn.says_nothing for turn in text if turn.role == "assistant"]
        empty = not text or text[-1].says_nothing or any(silent)
    if empty:
        raise Refused("empty completion", f" in {name!r}")


def check_text(name: str, text: Text) -> None:
    """Refuse text that cannot be encoded."""
    turns = () if isinstance(text, str) else text
    parts = [part for turn in turns for part in (turn.role, turn.content, turn.extra)]
    for part in [text] if isinstance(text, str) else parts:
        try:
            part.encode()
        except UnicodeEncodeError as problem:
            raise Refused("text is not valid Unicode", f" in {name!r}") from problem


def check_number(name: str, value: float | None) -> None:
    """Refuse infinities and NaN."""
    if value is not None and not math.isfinite(value):
        raise Refused(f"{name!r} is not a finite number", f": {value}")
