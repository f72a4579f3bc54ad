"""Completions that were judged one by one."""

from dataclasses import dataclass
from typing import Literal, Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Text
from alignlab.errors import DataError


@dataclass(frozen=True, slots=True)
class JudgedCompletion(Completable):
    """A completion that was labelled desirable or undesirable."""

    COLUMNS = (("prompt", "completion", "label"),)
    completion: Text
    label: Literal["desirable", "undesirable"]
    ends: bool = True

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The three columns, and ``ends``; the label may also be a truth value."""
        prompt, completion = read.prompt_and("completion")
        ends, desirable = read.flag("ends"), read.either("label", "desirable", "undesirable")
        return cls(read.id, prompt, completion, "desirable" if desirable else "undesirable", ends)

    def branches(self) -> list[Branch]:
        """The completion."""
        return [Branch("completion", self.completion, self.ends)]

    @property
    def labels(self) -> tuple[float, ...]:
        """1 for desirable, 0 for undesirable."""
        return (float(self.label == "desirable"),)


def check_both(source: str, rows: int, desirable: float) -> None:
    """Check that some rows are desirable and others not: of one class there is nothing to learn.

    Raises:
        DataError: All ``rows`` have one label.
    """
    if desirable in (0, rows):
        only, other = ("", "un") if desirable else ("un", "")
        raise DataError(
            f"{source}: all {rows:,} usable rows are {only}desirable. "
            f"Add {other}desirable ones, or train on these as demonstrations."
        )
