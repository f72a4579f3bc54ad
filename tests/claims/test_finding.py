"""Verdicts by hand: Student's and Snedecor's quantiles from tables."""

import math

import pytest

from alignlab.claims.finding import (
    FAILED,
    HELD,
    NOT_RUN,
    UNRESOLVED,
    Finding,
    Measured,
    all_of,
    apart,
    exact,
    in_interval,
    mean_of,
    spread_ratio,
)


def test_exact_numbers_must_all_lie_between_the_bounds() -> None:
    assert exact([0.2, 0.9], low=0.0, high=1.0).verdict == HELD
    found = exact([0.2, 1.5, -1.0], low=0.0, high=1.0)
    assert (found.verdict, found.value, found.lo, found.hi, found.n) == (FAILED, -1, -1, -1, 0)
    assert exact([1.0], high=1.0).verdict == HELD


def test_the_interval_decides() -> None:
    """Mean 2, deviation 1 of three: t = 4.302653 with 2 degrees, half-width 2.484138."""
    values = {0: 1.0, 1: 2.0, 2: 3.0}
    found = mean_of(values, low=-0.5)
    assert (found.verdict, found.value, found.n, found.needed) == (HELD, 2.0, 3, None)
    assert (found.lo, found.hi) == pytest.approx((2 - 2.484138, 2 + 2.484138))
    assert mean_of(values, low=-0.4).verdict == UNRESOLVED
    assert mean_of(values, high=4.5).verdict == HELD
    assert mean_of(values, low=4.5).verdict == FAILED
    assert mean_of(values, high=-0.5).verdict == FAILED
    assert mean_of(values, low=-1.0, high=4.0).verdict == UNRESOLVED  # within, but not all of it


def test_runs_that_would_resolve_it() -> None:
    """A difference as large as the deviation: ten runs, by tables of the t-test's power (0.80)."""
    found = mean_of({0: 0.0, 1: 1.0, 2: 2.0}, low=0.0)
    assert (found.verdict, found.needed) == (UNRESOLVED, 10)
    assert mean_of({0: 0.1, 1: 1.1, 2: 2.1}, low=2.1).needed == 10  # the distance to the bound
    one = mean_of({0: 1.0}, low=0.0)
    assert (one.verdict, one.lo, one.hi, one.needed) == (UNRESOLVED, None, None, None)


def test_a_ratio_of_deviations() -> None:
    """F(0.975; 4, 4) = 9.6045: deviations 1 and 2 are not apart, 1 and 4 are."""
    small, large = [-1.0, -1.0, 0.0, 1.0, 1.0], [-2.0, -2.0, 0.0, 2.0, 2.0]
    found = spread_ratio([small], [large], high=1.0)
    assert found.value == pytest.approx(0.5)
    assert found.lo == pytest.approx(0.5 / 9.6045**0.5, rel=1e-4)
    assert found.hi == pytest.approx(0.5 * 9.6045**0.5, rel=1e-4)
    # The interval is below 1 when F(0.975; n - 1, n - 1) < 4: F(9, 9) = 4.026, F(10, 10) = 3.717.
    assert (found.verdict, found.needed) == (UNRESOLVED, 11)
    assert spread_ratio([small], [[2 * x for x in large]], high=1.0).verdict == HELD
    assert spread_ratio([[2 * x for x in large]], [small], high=1.0).verdict == FAILED


def test_deviations_of_groups_are_pooled() -> None:
    """Sums of squares 2 and 8 with one degree each: variance 5; means do not matter."""
    found = spread_ratio([[0.0, 2.0], [100.0, 104.0]], [[0.0, 2.0], [0.0, 2.0]], high=9.0)
    assert found.value == pytest.approx((5 / 2) ** 0.5)
    assert found.n == 4


def test_a_single_run_has_no_spread() -> None:
    for groups, others in [([[1.0]], [[1.0, 2.0]]), ([[1.0, 2.0]], [[1.0], [3.0]])]:
        found = spread_ratio(groups, others, high=1.0)
        assert (found.verdict, found.value) == (UNRESOLVED, None)


def test_an_interval_of_a_table() -> None:
    assert in_interval(Measured(0.3, 0.1, 0.5, 5), low=0.0).verdict == HELD
    assert in_interval(Measured(0.3, -0.1, 0.7, 5), low=0.0).verdict == UNRESOLVED
    assert in_interval(Measured(-0.3, -0.5, -0.1, 5), low=0.0).verdict == FAILED
    open_above = in_interval(Measured(0.3, 0.1, math.inf, 5), low=0.0)
    assert (open_above.verdict, open_above.lo, open_above.hi) == (HELD, 0.1, None)


def test_a_difference_of_two_intervals() -> None:
    """5 in [3, 8] less 2 in [1, 6]: 3, down by (2, 4) and up by (3, 1), as right triangles."""
    found = apart(Measured(5, 3, 8, 4), Measured(2, 1, 6, 3))
    assert (found.value, found.n) == (3, 3)
    assert (found.lo, found.hi) == pytest.approx((3 - 20**0.5, 3 + 10**0.5))
    nothing_below = apart(Measured(5, 3, 8, 4), Measured(2, 1, math.inf, 3))
    assert nothing_below.lo == -math.inf
    assert nothing_below.hi == found.hi


def test_signs_and_shares() -> None:
    assert Measured(2, 1, 6, 3).turned() == (-2, -6, -1, 3)
    assert Measured(2, 1, 6, 3).over(2) == (1, 0.5, 3, 3)


def test_the_first_verdict_of_parts_counts() -> None:
    parts = [Finding(verdict=v) for v in (HELD, NOT_RUN, UNRESOLVED, FAILED)]
    for k in range(4):
        assert all_of(parts[: k + 1]).verdict == parts[k].verdict


def test_among_parts_with_one_verdict_the_nearest_to_failing_is_shown() -> None:
    parts = [Finding(verdict=HELD, value=v) for v in (0.5, 0.2, 0.9)]
    assert all_of(parts).value == 0.2
    assert all_of(parts, worst="largest").value == 0.9
    assert all_of([*parts, Finding(verdict=UNRESOLVED)]).verdict == UNRESOLVED
