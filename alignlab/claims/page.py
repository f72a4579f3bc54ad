"""``claims.csv`` and ``README.md`` of a folder of results folders: what was found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from alignlab.claims.card import Card, Claim
from alignlab.claims.cards import CARDS
from alignlab.claims.finding import NOT_RUN, UNRESOLVED, VERDICTS, Finding
from alignlab.claims.tables import Folder, Missing, NotReached
from alignlab.errors import DataError
from alignlab.files import atomic_write
from alignlab.results.csv_tables import write_table

HEAD = """# What was claimed, and what was found

Written by `alignlab claims results` from the tables in these folders; the rules are in
`alignlab/claims/cards`. A claim is an inequality. It *held* or *did not hold* if its 95 %
interval lies on one side of the bound, or if it was computed exactly. Otherwise it is *not
resolved*; in parentheses is the number of runs that would resolve a difference of this size with a
chance of 80 %. A card held if all its claims held. How the tables are made:
[docs/claims.md](../docs/claims.md).
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of ``claims.csv``.

    Args:
        card: Its name.
        claim: The sentence; the card's title where it has no rule yet.
        folder: The results folder that it reads.
        verdict: See ``Finding``, like all that follows.
        value: What was measured.
        lo: Lower end of its 95 % interval.
        hi: Upper end.
        n: Independent runs.
        needed: Runs that would resolve it.
    """

    card: str
    claim: str
    folder: str
    verdict: str
    value: float | None
    lo: float | None
    hi: float | None
    n: int
    needed: int | None


def write_claims(results: Path, cards: Sequence[Card] = CARDS) -> str:
    """Decide every claim, write both files, and return one line for each card.

    Raises:
        DataError: There is no such folder.
    """
    if not results.is_dir():
        raise DataError(f"{results}: no such folder. Give the one that holds results folders.")
    rows = [row for card in cards for row in _rows(results, card)]
    verdicts = {
        card.name: _of_all([r.verdict for r in rows if r.card == card.name]) for card in cards
    }
    columns = [field.name for field in fields(Row)]
    write_table(results / "claims.csv", [vars(row) for row in rows], columns, numbers=".6g")
    atomic_write(results / "README.md", _page(cards, rows, verdicts).encode())
    return "\n".join(f"{card.name:<4} {verdicts[card.name]:<13} {card.title}" for card in cards)


def _rows(results: Path, card: Card) -> list[Row]:
    if not card.claims:
        return [_row(card, Claim(card.title, "", _nothing), Finding(verdict=NOT_RUN))]
    return [_row(card, claim, decide(results, claim)) for claim in card.claims]


def decide(results: Path, claim: Claim) -> Finding:
    """What its tables say; not run where one is missing.

    Raises:
        DataError: A table is damaged.
    """
    try:
        return claim.rule(Folder(results / claim.folder))
    except Missing:
        return Finding(verdict=NOT_RUN)
    except NotReached:
        return Finding(verdict=UNRESOLVED)


def _nothing(folder: Folder) -> Finding:
    return Finding(verdict=NOT_RUN)


def _row(card: Card, claim: Claim, found: Finding) -> Row:
    return Row(card=card.name, claim=claim.says, folder=claim.folder, **vars(found))


def _of_all(verdicts: Sequence[str]) -> str:
    """The first of ``VERDICTS`` among those of a card's claims."""
    return min(verdicts, key=VERDICTS.index)


def _page(cards: Sequence[Card], rows: Sequence[Row], verdicts: dict[str, str]) -> str:
    counts = Counter(verdicts.values())
    said = ", ".join(f"{counts[v]} {v}" for v in reversed(VERDICTS) if counts[v])
    lines = [
        HEAD,
        f"Of {len(cards)} cards: {said}.",
        "",
        "| card | what | verdict |",
        "|---|---|---|",
    ]
    lines += [f"| {card.name} | {card.title} | {verdicts[card.name]} |" for card in cards]
    lines += [
        "",
        "## Claim by claim",
        "",
        "| card | claim | verdict | value | runs |",
        "|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in rows if row.folder]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    more = f" ({row.needed:,} runs would resolve it)" if row.needed else ""
    runs = "" if row.value is None else str(row.n or "exact")
    return f"| {row.card} | {row.claim} | {row.verdict}{more} | {_number(row)} | {runs} |"


def _number(row: Row) -> str:
    if row.value is None:
        return ""
    value, ends = f"{row.value:.3g}", (row.lo, row.hi)
    if row.n == 0 or None in ends:
        return value
    return f"{value} [{row.lo:.3g}, {row.hi:.3g}]"
