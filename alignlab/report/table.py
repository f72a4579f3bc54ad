"""The frontier as text: what ``alignlab frontier`` prints."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alignlab.report.look import EVERYTHING, Look
from alignlab.results.tables import FrontierRow

MISSING, PLUS_MINUS = "-", "±"
BOUNDS = ("oracle", "dual_bound", "reference")  # of all policies: they take no part in a comparison
CURVES_WITHOUT_TRAINING = ("best_of_n", "best_of_n_gt", "oracle_proxy", *BOUNDS)
SHOWN = "mean and half of its 95 % interval"
RULE = (
    "Bold: the interval lies above the intervals of all other rows with a value, optimum and "
    "reference aside; nowhere in a column where a trained objective has a single seed, because "
    "its interval leaves out the variance over training seeds."
)
FEWER = "In parentheses: the number of seeds that reach the budget, where not all do."


class Grid(NamedTuple):
    """An objective a row; a KL budget, or another number of it, a column.

    Attributes:
        columns: Their heads.
        labels: Of the rows.
        cells: Mean and half of its 95 % interval; ``MISSING`` where there is none.
        bold: Row and column of the cells that stand out, of frontiers by ``RULE``.
        corner: Head of the labels.
    """

    columns: list[str]
    labels: list[str]
    cells: list[list[str]]
    bold: frozenset[tuple[int, int]]
    corner: str = "KL (nats)"


def grid(rows: Iterable[FrontierRow], look: Look = EVERYTHING, *, share: bool = False) -> Grid:
    """The reward of every objective within each budget, or its share of the optimum's gain."""
    rows = look.shown(rows)
    names = list(dict.fromkeys(row.objective for row in rows))
    if share:
        names = [name for name in names if name not in BOUNDS]
    budgets = sorted({row.kl_budget for row in rows})
    cell = {(row.objective, row.kl_budget): row for row in rows}
    most = {name: max(row.n_seeds for row in rows if row.objective == name) for name in names}
    bold = set()
    for column, budget in enumerate(budgets):
        own = [cell[name, budget] for name in names if (name, budget) in cell]
        best = _above_all([row for row in own if row.objective not in BOUNDS], share=share)
        if best is not None:
            bold.add((names.index(best), column))
    return Grid(
        [f"{budget:g}" for budget in budgets],
        [look.label(name) for name in names],
        [
            [_cell(cell.get((name, budget)), most[name], share=share) for budget in budgets]
            for name in names
        ],
        frozenset(bold),
    )


def frontier_table(rows: Sequence[FrontierRow], look: Look = EVERYTHING) -> str:
    """Reward and efficiency with 95 % half-widths: an objective a line, a KL budget a column."""
    rewards, shares = grid(rows, look), grid(rows, look, share=True)
    headers = ["KL budget", *rewards.columns]
    cell = {row.kl_budget: row for row in rows if row.objective == "oracle"}
    ess = [_ess(cell.get(budget)) for budget in sorted({row.kl_budget for row in look.shown(rows)})]
    lines = [
        [[label, *cells] for label, cells in zip(each.labels, each.cells, strict=True)]
        for each in (rewards, shares)
    ]
    return "\n".join(
        [
            "reward (95 % interval)",
            aligned([headers, *lines[0]]),
            "",
            "oracle efficiency: share of the optimum's gain over the reference (95 % interval)",
            aligned([headers, *lines[1], ["oracle's ESS", *ess]]),
        ]
    )


def has_fewer_seeds(rows: Iterable[FrontierRow]) -> bool:
    """Whether an objective has a value at a budget that some of its seeds do not reach."""
    seeds: dict[str, set[int]] = {}
    for row in rows:
        if row.reward is not None:
            seeds.setdefault(row.objective, set()).add(row.n_seeds)
    return any(len(own) > 1 for own in seeds.values())


def _above_all(rows: Sequence[FrontierRow], *, share: bool) -> str | None:
    """The objective whose interval lies above all others', by ``RULE``."""
    known = [(row, _numbers(row, share=share)) for row in rows]
    own = [(numbers[1], numbers[2], row) for row, numbers in known if numbers is not None]
    if len(own) < 2 or any(
        row.n_seeds == 1 and row.objective not in CURVES_WITHOUT_TRAINING for *_, row in own
    ):
        return None
    low, _, best = max(own, key=lambda three: three[0])
    others = max(high for _, high, row in own if row is not best)
    return best.objective if low > others else None


def _numbers(row: FrontierRow, *, share: bool) -> tuple[float, float, float] | None:
    """Value and both ends of its interval, if they are known."""
    three = row.reward, row.reward_lo, row.reward_hi
    if share:
        three = row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi
    value, low, high = three
    return None if value is None or low is None or high is None else (value, low, high)


def _cell(row: FrontierRow | None, seeds: int, *, share: bool) -> str:
    numbers = None if row is None else _numbers(row, share=share)
    if row is None or numbers is None:
        return MISSING
    value, _, high = numbers
    digits = 3 if share else 2
    fewer = f" ({row.n_seeds})" if row.n_seeds < seeds else ""
    return f"{value:.{digits}f}{PLUS_MINUS}{high - value:.{digits}f}{fewer}"


def frontier_sentences(rows: Sequence[FrontierRow], look: Look = EVERYTHING) -> str:
    """The efficiencies, a line per budget, in the rows' order; then why cells may be empty."""
    lines, rows = [], look.shown(rows)
    for budget in sorted({row.kl_budget for row in rows}):
        known = [
            row
            for row in rows
            if row.kl_budget == budget
            and row.oracle_efficiency is not None
            and row.objective not in BOUNDS
        ]
        if known:
            parts = ", ".join(f"{look.label(row.objective)} {_percent(row)}" for row in known)
            lines.append(f"Share of the optimum's gain at KL {budget:g}: {parts}.")
    trained = [row for row in rows if row.objective not in CURVES_WITHOUT_TRAINING]
    if has_fewer_seeds(rows):
        lines.append(FEWER)
    if any(row.reward is None for row in trained):
        lines.append(f"{MISSING} : beyond the largest KL that most seeds reached.")
    if any(row.reward is not None and row.oracle_efficiency is None for row in trained):
        lines.append(
            "Efficiency is left out where over 5 % of the prompts have an effective sample size "
            "under 50 at the optimum: more pool samples, or trained policies as proposals, help."
        )
    if trained and max(row.n_seeds for row in trained) == 1:
        lines.append(
            "One seed: intervals count prompts only, not the variance over training seeds."
        )
    return "\n".join(lines)


def _ess(row: FrontierRow | None) -> str:
    return MISSING if row is None or row.oracle_ess is None else f"{row.oracle_ess:.0f}"


def _percent(row: FrontierRow) -> str:
    assert row.oracle_efficiency is not None
    assert row.efficiency_lo is not None
    assert row.efficiency_hi is not None
    low, high = 100 * row.efficiency_lo, 100 * row.efficiency_hi
    return f"{100 * row.oracle_efficiency:.1f} % [{low:.1f}, {high:.1f}]"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *map(str.rjust, line[1:], widths[1:]),
            ]  # numbers to the right
        )
        for line in lines
    )
