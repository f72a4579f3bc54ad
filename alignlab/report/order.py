"""Does the order of objectives survive a change? A results folder beside others, at KL ``PRIMARY``.

The others have the same objectives under a changed condition, each with its own reference and its
own optimum. So numbers are shares of the optimum's gain, and orders are compared, not rewards.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from alignlab.errors import ConfigError, DataError
from alignlab.report.look import Look
from alignlab.report.table import CURVES_WITHOUT_TRAINING, MISSING, PLUS_MINUS, SHOWN, Grid
from alignlab.results.csv_tables import read_typed
from alignlab.results.tables import PRIMARY, Comparison, FrontierRow, Order, read_frontier

ORDER = "order.csv"
TABLES = ("curves.csv", "comparisons.csv")  # of a folder, as drawn
FATES = ("survives", "reversed", "not_resolved")  # of a pair that the base resolves


class Case(NamedTuple):
    """What a results folder says at KL ``PRIMARY``.

    Attributes:
        name: Of the folder.
        rows: Trained objective -> its frontier there.
        above: The pairs whose difference is resolved, the better one first.
    """

    name: str
    rows: dict[str, FrontierRow]
    above: frozenset[tuple[str, str]]


def read_case(folder: Path) -> Case:
    """The tables of ``folder``.

    Raises:
        DataError: It has not been drawn.
    """
    curves, comparisons = (folder / name for name in TABLES)
    for path in (curves, comparisons):
        if not path.exists():
            raise DataError(f"{path}: no such table. It is made with: alignlab frontier {folder}")
    rows = {row.objective: row for row in read_frontier(curves) if row.kl_budget == PRIMARY}
    compared = [row for row in read_typed(comparisons, Comparison) if row.kl_budget == PRIMARY]
    above = {(row.objective, row.other) for row in compared if row.lo > 0}
    above |= {(row.other, row.objective) for row in compared if row.hi < 0}
    trained = {name: row for name, row in rows.items() if name not in CURVES_WITHOUT_TRAINING}
    return Case(folder.resolve().name, trained, frozenset(above))


def order_rows(base: Case, others: Sequence[Case], look: Look) -> list[Order]:
    """A row for each folder and objective that the base and one of the others have.

    Args:
        base: Whose order is looked for in the others.
        others: The same objectives under a changed condition.
        look: The objectives to compare; in the order of their shares if it names none.

    Raises:
        ConfigError: Two folders of one name.
        DataError: Fewer than two objectives in common.
    """
    cases = [base, *others]
    if len({case.name for case in cases}) < len(cases):
        raise ConfigError("--order: two folders have the same name. Each is a row of the table.")
    common = base.rows.keys() & {name for case in others for name in case.rows}
    ranked = sorted(base.rows.values(), key=lambda row: (-_share(row), row.objective))
    names = [row.objective for row in look.shown(ranked) if row.objective in common]
    if len(names) < 2:
        raise DataError(
            f"--order: {base.name} has {len(names)} objectives in common with the others. An order "
            "needs two."
        )
    return [row for case in cases for row in _rows_of(case, base, names)]


def _rows_of(case: Case, base: Case, names: Sequence[str]) -> list[Order]:
    found = {name: case.rows[name] for name in names if name in case.rows}
    shares = [row.oracle_efficiency for row in found.values() if row.oracle_efficiency is not None]
    rows = []
    for name in names:
        row = found.get(name, FrontierRow(objective=name, kl_budget=PRIMARY))
        share = row.oracle_efficiency
        below = [other for other in names if (name, other) in base.above]
        kept = [other for other in below if (name, other) in case.above]
        turned = [other for other in below if (other, name) in case.above]
        rows.append(
            Order(
                results=case.name,
                objective=name,
                share=share,
                share_lo=row.efficiency_lo,
                share_hi=row.efficiency_hi,
                rank=None if share is None else 1 + sum(other > share for other in shares),
                n_seeds=row.n_seeds,
                survives=" ".join(kept),
                reversed=" ".join(turned),
                not_resolved=" ".join(o for o in below if o not in (*kept, *turned)),
            )
        )
    return rows


def _share(row: FrontierRow) -> float:
    return -9.0 if row.oracle_efficiency is None else row.oracle_efficiency


def order_grid(rows: Sequence[Order], look: Look) -> Grid:
    """A folder a row: each objective's share and rank, and what became of the base's order."""
    names, cases = _listed(rows)
    cells, bold = [], set()
    for i, case in enumerate(cases):
        own = {row.objective: row for row in rows if row.results == case}
        kept, turned, open_ = (len(_pairs(own.values(), what, look)) for what in FATES)
        total = kept + turned + open_
        line = [_cell(own[name]) for name in names]
        cells.append([*line, f"{kept}/{total}", str(turned), str(open_)])
        if turned:
            bold.add((i, len(names) + 1))
    head = [*map(look.label, names), "order survives", "reversed", "not resolved"]
    return Grid(head, cases, cells, frozenset(bold), f"at KL {PRIMARY:g}")


def order_caption(rows: Sequence[Order], look: Look) -> str:
    """How to read ``order_grid``, and which pairs are reversed or not resolved."""
    names, (base, *others) = _listed(rows)
    resolved = sum(len(row.survives.split()) for row in rows if row.results == base)
    lines = [
        f"Share of the optimum's gain at KL {PRIMARY:g}, {SHOWN}; in parentheses the rank. "
        f"{base} resolves {resolved} of {len(names) * (len(names) - 1) // 2} pairs: the 95 % "
        "interval of their difference leaves out 0, without a correction for the number of pairs. "
        "In another row such a pair survives if its interval lies on the same side of 0, is "
        "reversed if it lies on the other, and is not resolved if it contains 0 or if an "
        "objective does not reach this KL."
    ]
    for case in others:
        own = [row for row in rows if row.results == case]
        for what in FATES[1:]:
            if pairs := _pairs(own, what, look):
                verdict = what.replace("_", " ").capitalize()
                lines.append(f"{verdict} in {case}: {', '.join(pairs)}.")
    return " ".join(lines)


def _listed(rows: Sequence[Order]) -> tuple[list[str], list[str]]:
    """Objectives and folders, in order."""
    names = list(dict.fromkeys(row.objective for row in rows))
    return names, list(dict.fromkeys(row.results for row in rows))


def _pairs(rows: Iterable[Order], what: str, look: Look) -> list[str]:
    """The base's pairs, the better one first, of which ``what`` holds."""
    return [
        f"{look.label(row.objective)} above {look.label(other)}"
        for row in rows
        for other in getattr(row, what).split()
    ]


def _cell(row: Order) -> str:
    if row.share is None or row.share_hi is None:
        return MISSING
    return f"{row.share:.3f}{PLUS_MINUS}{row.share_hi - row.share:.3f} ({row.rank})"
