"""The base of all kinds of row: the columns it is read from, its checks, branches and labels.

A row holds text as its author wrote it: a plain string, or a conversation (turns) that is rendered
later with the tokenizer's chat template. Prompt and completion are concatenated as they are, so a
completion carries its own leading space.

A kind of row is one file with one subclass of ``Completable``, a dataclass: ``COLUMNS`` names what
it is read from, ``parse`` makes it of one record, ``check`` refuses unusable values, ``branches``
lists its completions and ``labels`` their numbers.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self, TypeVar

from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Text, check_completion, check_text


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
    def parse(cls, read: Reader) -> Self:
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
        """The text that decides the side of a split; rows that share it stay together."""
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
