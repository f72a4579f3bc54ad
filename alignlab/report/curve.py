"""An objective's curve, as the figure and the page draw it: reward, or share of the gain."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from alignlab.report.look import EVERYTHING, Look
from alignlab.report.table import BOUNDS, CURVES_WITHOUT_TRAINING
from alignlab.results.tables import FrontierRow


class Curve(NamedTuple):
    """An objective's budgets, its rewards, both ends of their intervals, and their seeds."""

    budgets: list[float]
    reward: list[float]
    low: list[float | None]
    high: list[float | None]
    seeds: list[int]

    @property
    def line(self) -> tuple[list[float], list[float]]:
        """What is drawn as a line."""
        return self.budgets, self.reward

    def pieces(self) -> Iterator[slice]:
        """Stretches with the same number of seeds."""
        begin = 0
        for _, own in itertools.groupby(self.seeds):
            end = begin + len(list(own))
            yield slice(begin, end)
            begin = end


def start_of(rows: Sequence[FrontierRow]) -> float | None:
    """The reference's reward, where every curve starts at KL 0."""
    return next((row.reward for row in rows if row.objective == "reference"), None)


def curve_of(rows: Sequence[FrontierRow], name: str, right: float, start: float | None) -> Curve:
    """An objective's curve up to ``right``, from KL 0 on if the reference's reward is known."""
    own = [
        row
        for row in rows
        if row.objective == name and row.reward is not None and row.kl_budget <= right
    ]
    own.sort(key=lambda row: row.kl_budget)
    if start is not None and own:
        first = replace(own[0], kl_budget=0.0, reward=start, reward_lo=start, reward_hi=start)
        own.insert(0, first)
    return Curve(
        [row.kl_budget for row in own],
        [row.reward for row in own if row.reward is not None],
        [row.reward_lo for row in own],
        [row.reward_hi for row in own],
        [row.n_seeds for row in own],
    )


def has_share(row: FrontierRow) -> bool:
    """Whether an objective's share of the optimum's gain is known."""
    return row.oracle_efficiency is not None and row.objective not in BOUNDS


def shares_of(rows: Sequence[FrontierRow]) -> list[FrontierRow]:
    """The rows whose share of the optimum's gain is known, with that share as their reward."""
    return [
        replace(
            row,
            reward=row.oracle_efficiency,
            reward_lo=row.efficiency_lo,
            reward_hi=row.efficiency_hi,
        )
        for row in rows
        if has_share(row)
    ]


def right_end(rows: Sequence[FrontierRow], look: Look = EVERYTHING) -> float:
    """The end of the KL axis: a little beyond the last budget chosen, or that training reached."""
    if look.budgets:
        return 1.05 * max(look.budgets)
    return max([1.0, *(1.05 * x for x in _reached(look.shown(rows)))])


def end_of_panels(rows: Sequence[FrontierRow], look: Look = EVERYTHING) -> float:
    """The end of the KL axis where each objective has a panel.

    One or two objectives that go far do not squeeze all others: the axis ends at twice the KL that
    four fifths of the objectives do not exceed.
    """
    ends = sorted(last_budgets(look.shown(rows)).values())
    right = right_end(rows, look)
    if look.budgets or not ends:
        return right
    return min(right, max(1.0, 2 * ends[math.ceil(0.8 * len(ends)) - 1]))


def last_budgets(rows: Sequence[FrontierRow]) -> dict[str, float]:
    """Trained objective -> the largest budget at which it has a reward."""
    found: dict[str, float] = {}
    for row in rows:
        if row.reward is not None and row.objective not in CURVES_WITHOUT_TRAINING:
            found[row.objective] = max(row.kl_budget, found.get(row.objective, 0.0))
    return found


def _reached(rows: Sequence[FrontierRow]) -> list[float]:
    """Budgets at which some trained objective has a reward; any curve's, if none is trained."""
    own = [row for row in rows if row.objective != "reference"]
    return [*last_budgets(rows).values()] or [r.kl_budget for r in own if r.reward is not None]
