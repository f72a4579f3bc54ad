"""The record of the rows that were refused, by reason."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from alignlab.data.rows.values import Refused
from alignlab.errors import ConfigError, DataError

Refuse = Literal["drop", "error"]
REFUSE: tuple[Refuse, ...] = ("drop", "error")
EXAMPLES = 3  # refused rows that a report names of each reason


@dataclass(slots=True)
class Refusals:
    """The refused rows of one source, by reason, and how many rows were read.

    Args:
        source: The file, hub id or data set that the rows come from, for messages.
        refuse: ``drop`` counts a refused row and goes on; ``error`` stops at the first.
        seen: Rows that were read.
        by_reason: Reason -> place (file:line or row number) of each refused row.
        unused: Columns that nothing reads -> number of rows in which they are not empty.
        notes: Other remarks on the rows, a sentence each.
    """

    source: str
    refuse: Refuse = "drop"
    seen: int = 0
    by_reason: dict[str, list[str]] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.refuse not in REFUSE:
            raise ConfigError(f"refuse must be one of {REFUSE}, got {self.refuse!r}.")

    @property
    def count(self) -> int:
        """How many rows were refused."""
        return sum(map(len, self.by_reason.values()))

    @property
    def counts(self) -> dict[str, int]:
        """Refused rows by reason, the commonest first."""
        counts = Counter({reason: len(ids) for reason, ids in self.by_reason.items()})
        return dict(counts.most_common())

    def add(self, id: str, problem: Refused) -> None:
        """Record that the row ``id`` was refused.

        Raises:
            DataError: At once, with ``refuse="error"``.
        """
        if self.refuse == "error":
            raise DataError(
                f"{id}: {problem}. Repair or remove the row, or set refuse=drop to leave such rows "
                f"out of {self.source} with a count."
            )
        self.by_reason.setdefault(problem.reason, []).append(id)

    def examples(self, reason: str) -> str:
        """The first few rows refused for ``reason``."""
        rows = self.by_reason[reason]
        return ", ".join([*rows[:EXAMPLES], *(["..."] if len(rows) > EXAMPLES else [])])

    def lines(self) -> list[str]:
        """A line for each reason, with the first few rows it hit, and for what else is left out."""
        refused = [
            f"  refused {count:,} x {reason}: {self.examples(reason)}"
            for reason, count in self.counts.items()
        ]
        unused = ", ".join(self.unused)
        columns = [f"  columns that nothing reads: {unused}"] if unused else []
        return [*refused, *columns, *(f"  {note}" for note in self.notes)]

    def tell(self) -> None:
        """Print on standard error what is left out, if anything is."""
        if lines := self.lines():
            kept = f"{self.source}: {self.seen - self.count:,} of {self.seen:,} rows kept"
            print("\n".join([kept, *lines]), file=sys.stderr, flush=True)

    def require_rows(self, usable: int) -> None:
        """Stop when nothing is left.

        Raises:
            DataError: No usable row; names the source and the commonest reasons.
        """
        if usable:
            return
        if not self.seen:
            raise DataError(f"{self.source}: holds no rows. Pass a source with at least one row.")
        why = "; ".join(
            f"{reason} ({count:,} rows, first {self.by_reason[reason][0]})"
            for reason, count in list(self.counts.items())[:3]
        )
        raise DataError(
            f"{self.source}: none of its {self.seen:,} rows can be used: {why}. "
            "Repair the rows or the settings that refuse them."
        )
