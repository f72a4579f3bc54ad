"""The frontier as text: what ``alignlab frontier`` prints."""

from collections.abc import Sequence

from alignlab.results.tables import FrontierRow

MISSING = "-"
CURVES_WITHOUT_TRAINING = ("best_of_n", "best_of_n_gt", "oracle", "reference")


def frontier_table(rows: Sequence[FrontierRow]) -> str:
    """Reward and efficiency with 95 % half-widths: an objective a line, a KL budget a column."""
    budgets = sorted({row.kl_budget for row in rows})
    objectives = list(dict.fromkeys(row.objective for row in rows))
    cell = {(row.objective, row.kl_budget): row for row in rows}
    headers = ["KL budget", *(f"{budget:g}" for budget in budgets)]
    rewards, efficiencies = [], []
    for name in objectives:
        own = [cell.get((name, budget)) for budget in budgets]
        rewards.append([name, *(_reward(row) for row in own)])
        if name not in ("oracle", "reference"):
            efficiencies.append([name, *(_efficiency(row) for row in own)])
    ess = [_ess(cell.get(("oracle", budget))) for budget in budgets]
    return "\n".join(
        [
            "reward (95 % interval)",
            _aligned([headers, *rewards]),
            "",
            "oracle efficiency: share of the optimum's gain over the reference (95 % interval)",
            _aligned([headers, *efficiencies, ["oracle's ESS", *ess]]),
        ]
    )


def frontier_sentences(rows: Sequence[FrontierRow]) -> str:
    """The efficiencies, a line per budget, in the rows' order; then why cells may be empty."""
    lines = []
    for budget in sorted({row.kl_budget for row in rows}):
        known = [
            row
            for row in rows
            if row.kl_budget == budget
            and row.oracle_efficiency is not None
            and row.objective not in ("oracle", "reference")
        ]
        if known:
            parts = ", ".join(f"{row.objective} {_percent(row)}" for row in known)
            lines.append(f"At KL {budget:g}, of the gain that is possible: {parts}.")
    trained = [row for row in rows if row.objective not in CURVES_WITHOUT_TRAINING]
    if any(row.reward is None for row in trained):
        lines.append(f"{MISSING} : beyond the largest KL that most seeds reached.")
    if any(row.reward is not None and row.oracle_efficiency is None for row in trained):
        lines.append(
            "Efficiency is left out where over 5 % of the prompts have an effective sample size "
            "under 50 at the optimum: more pool samples, or trained policies as proposals, help."
        )
    if trained and max(row.n_seeds for row in trained) == 1:
        lines.append("One seed: intervals count prompts only, not the luck of training.")
    return "\n".join(lines)


def _reward(row: FrontierRow | None) -> str:
    if row is None or row.reward is None or row.reward_hi is None:
        return MISSING
    return f"{row.reward:.2f}±{row.reward_hi - row.reward:.2f}"


def _efficiency(row: FrontierRow | None) -> str:
    if row is None or row.oracle_efficiency is None or row.efficiency_hi is None:
        return MISSING
    return f"{row.oracle_efficiency:.3f}±{row.efficiency_hi - row.oracle_efficiency:.3f}"


def _ess(row: FrontierRow | None) -> str:
    return MISSING if row is None or row.oracle_ess is None else f"{row.oracle_ess:.0f}"


def _percent(row: FrontierRow) -> str:
    assert row.oracle_efficiency is not None
    assert row.efficiency_lo is not None
    assert row.efficiency_hi is not None
    low, high = 100 * row.efficiency_lo, 100 * row.efficiency_hi
    return f"{100 * row.oracle_efficiency:.1f} % [{low:.1f}, {high:.1f}]"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
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
