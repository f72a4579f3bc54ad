"""``rows.csv``: rows of a stage that were read, refused, cut and kept, in a table to commit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from alignlab.data.rows import RowReport
from alignlab.results.csv_tables import write_table


class Tally(NamedTuple):
    """Row counts of a part by outcome; "kept" includes the cut rows."""

    part: str
    what: Literal["read", "refused", "cut", "kept"]
    reason: str
    rows: int


def tally(part: str, refusals: RowReport, kept: int, cuts: Mapping[str, int] = {}) -> list[Tally]:
    """A part's rows: those read, refused by reason, cut by reason, and kept (the cut included)."""
    return [
        Tally(part, "read", "", refusals.seen),
        *(Tally(part, "refused", reason, count) for reason, count in refusals.counts.items()),
        *(Tally(part, "cut", reason, count) for reason, count in sorted(cuts.items())),
        Tally(part, "kept", "", kept),
    ]


def write_tally(folder: Path, rows: Sequence[Tally]) -> None:
    """Write ``rows.csv`` into ``folder``."""
    write_table(folder / "rows.csv", [row._asdict() for row in rows], Tally._fields)
