"""What every kind of row is: the columns it is read from, its checks, its branches and labels.

A row holds text as its author wrote it: a plain string, or a conversation (turns) that is rendered
later with the tokenizer's chat template. Prompt and completion are concatenated as they are, so a
completion carries its own leading space.

A kind of row is one file with one subclass of ``Completable``, a dataclass: ``COLUMNS`` names what
it is read from, ``parse`` makes it of one record, ``check`` refuses unusable values, ``branches``
lists its completions and ``labels`` their numbers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

if TYPE_CHECKING:
    from alignlab.data.rows.reader import Reader

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One unread row: where it stands (file:line or row number) and its fields, if it has any."""

    where: str
    fields: Fields | None
    problem: str = ""  # why there are no fields


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
        """What the message holds beside role and content."""
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


class Branch(NamedTuple):
    """One completion of a row: the column it comes from, and whether it is complete.

    A completion that was cut off gets no end-of-text token, and none is trained.
    """

    column: str
    text: Text
    ends: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data.

    ``COLUMNS`` lists the sets of columns that it can be read from; the first that a source has is
    used.
    """

    COLUMNS: ClassVar[tuple[tuple[str, ...], ...]]
    id: str

    @classmethod
    def parse(cls, read: "Reader") -> Self:
        """The row of one record.

        Raises:
            Refused: The record lacks a value, or holds one of another type.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Check the values.

        Raises:
            Refused: With the reason why the row cannot be used.
        """

    @property
    def shared(self) -> Text:
        """The text that decides on which side of a split the row falls."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Completable(Row):
    """A row that is a prompt with completions, or a prompt alone."""

    prompt: Text

    def branches(self) -> list[Branch]:
        """The completions, in the order in which trees hold them; none of a prompt alone."""
        return []

    @property
    def labels(self) -> tuple[float, ...] | None:
        """A number for each completion, or ``None``."""
        return None

    @property
    def shared(self) -> Text:
        """The prompt."""
        return self.prompt

    def check(self) -> None:
        """Check the prompt and every completion.

        Raises:
            Refused: A text is not valid Unicode, or a completion is empty.
        """
        check_text("prompt", self.prompt)
        for branch in self.branches():
            check_completion(branch.column, branch.text)


R = TypeVar("R", bound=Row)


class Refused(Exception):
    """A row that cannot be used: ``reason`` is what is counted, ``detail`` what this row had."""

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
