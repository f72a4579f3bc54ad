"""Curves: where they start, where they are cut, how far the axis goes."""

import math
from dataclasses import replace

from alignlab.report.curve import (
    curve_of,
    end_of_panels,
    has_share,
    right_end,
    shares_of,
    start_of,
)
from alignlab.report.look import Look
from alignlab.results.tables import FrontierRow
from tests.report.test_page import row

ROWS = [
    replace(row("dpo", 1.0, 2.0), n_seeds=2, oracle_efficiency=0.8),
    replace(row("dpo", 0.5, 1.0), n_seeds=3, oracle_efficiency=0.6, efficiency_lo=0.5),
    replace(row("dpo", 0.25, 0.5), n_seeds=3),
    FrontierRow(objective="dpo", kl_budget=2.0),
    replace(row("oracle", 4.0, 3.0), oracle_efficiency=1.0),
    row("reference", 0.5, -1.0),
]


def test_a_curve_starts_at_the_reference_and_ends_where_it_is_known() -> None:
    curve = curve_of(ROWS, "dpo", math.inf, start_of(ROWS))
    assert curve.line == ([0.0, 0.25, 0.5, 1.0], [-1.0, 0.5, 1.0, 2.0])
    assert curve.low == [-1.0, 0.4, 0.9, 1.9]
    assert list(curve.pieces()) == [slice(0, 3), slice(3, 4)]
    assert curve_of(ROWS, "dpo", 0.6, None).budgets == [0.25, 0.5]
    assert curve_of(ROWS, "ppo", math.inf, -1.0).budgets == []


def test_shares_take_the_rewards_place_but_for_optimum_and_reference() -> None:
    assert [has_share(row) for row in ROWS] == [True, True, False, False, False, False]
    found = [(r.kl_budget, r.reward, r.reward_lo) for r in shares_of(ROWS)]
    assert found == [(1.0, 0.8, None), (0.5, 0.6, 0.5)]


def test_the_axis_ends_behind_what_training_reached_or_at_the_budget_chosen() -> None:
    assert right_end(ROWS) == 1.05  # the optimum alone reaches 4
    assert right_end(ROWS, Look(budgets=(0.5, 3.0))) == 1.05 * 3.0


def test_an_objective_that_goes_far_does_not_squeeze_the_panels_of_the_others() -> None:
    ends = {"a": 1.0, "b": 20.0, "c": 3.0, "d": 2.0, "e": 4.0}
    rows = [
        FrontierRow(objective=name, kl_budget=budget, reward=1.0)
        for name, end in ends.items()
        for budget in (0.5, end)
    ]
    assert end_of_panels(rows) == 2 * 4.0
    assert end_of_panels([row for row in rows if row.objective != "b"]) == 1.05 * 4.0
    assert end_of_panels([row for row in rows if row.objective in "ab"]) == 1.05 * 20.0
    assert end_of_panels(rows, Look(budgets=(0.5, 3.0))) == 1.05 * 3.0
    assert end_of_panels([]) == right_end([]) == 1.0
