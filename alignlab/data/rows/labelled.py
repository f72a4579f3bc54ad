"""Whole texts, with or without a label."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Row
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, check_number, check_text


@dataclass(frozen=True, slots=True)
class LabelledText(Row):
    """A whole text and its class or rating, if it has one."""

    COLUMNS = (("text",),)
    text: str
    label: float | None = None

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The column ``text``, and ``label``."""
        return cls(read.id, read.plain("text"), read.number("label"))

    def check(self) -> None:
        """Refuse empty texts and labels that are not finite.

        Raises:
            Refused: The reason.
        """
        check_text("text", self.text)
        if not self.text.strip():
            raise Refused("empty text")
        check_number("label", self.label)

    @property
    def shared(self) -> str:
        """The text."""
        return self.text
