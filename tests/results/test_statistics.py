"""Errors and intervals against scipy, double loops and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from alignlab.results.statistics import (
    bootstrap_counts,
    clustered_se,
    half_weights,
    halves,
    holm,
    t_interval,
    wilson_interval,
)


def test_clusters_of_one_give_the_ordinary_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=30)
    assert clustered_se(x) == pytest.approx(stats.sem(x), rel=1e-12)


def test_equal_clusters_give_the_standard_error_of_their_means() -> None:
    x = np.random.default_rng(1).normal(size=(12, 4)) + np.arange(12)[:, None]
    names = [f"p{i}" for i in range(12) for _ in range(4)]
    assert clustered_se(x.ravel(), names) == pytest.approx(stats.sem(x.mean(1)), rel=1e-12)


def test_unequal_clusters_worked_by_hand() -> None:
    """x = 0, 2 | 7, mean 3: cluster sums -4 and 4; sqrt(2/1 * 32) / 3 = 8/3."""
    assert clustered_se([0, 2, 7], ["a", "a", "b"]) == pytest.approx(8 / 3)


def test_one_cluster_has_no_standard_error() -> None:
    assert math.isnan(clustered_se([1.0, 2.0], ["a", "a"]))


def test_t_interval_is_scipys() -> None:
    x = [0.3, 0.5, 1.1]
    wanted = stats.t.interval(0.95, 2, loc=np.mean(x), scale=stats.sem(x))
    assert t_interval(x) == pytest.approx(wanted, rel=1e-9)
    assert all(math.isnan(end) for end in t_interval([1.0]))


def test_t_interval_over_three_seeds_covers_95_percent() -> None:
    x = np.random.default_rng(2).normal(size=(4000, 3))
    hits = [lo <= 0 <= hi for lo, hi in map(t_interval, x)]
    assert np.mean(hits) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


@pytest.mark.parametrize(("wins", "n"), [(0, 10), (3, 10), (10, 10), (517, 1000)])
def test_wilson_is_scipys(wins: int, n: int) -> None:
    wanted = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson_interval(wins, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(("wins", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_share(wins: int, n: int) -> None:
    with pytest.raises(ValueError, match="a share needs"):
        wilson_interval(wins, n)


def test_bootstrap_counts_are_draws_with_replacement() -> None:
    counts = bootstrap_counts(20, 4000, seed=3)
    assert (counts.sum(1) == 20).all()
    # A count is Binomial(20, 1/20): mean 1, variance 0.95.
    assert counts[:, 0].mean() == pytest.approx(1, abs=4 * math.sqrt(0.95 / 4000))
    assert counts[:, 0].var() == pytest.approx(0.95, rel=0.1)
    assert np.array_equal(counts, bootstrap_counts(20, 4000, seed=3))


def test_halves_are_resampled_apart() -> None:
    """Seven units: four even places in quarters, three odd ones in thirds."""
    weights = half_weights(7, 50, seed=2)
    assert [half.tolist() for half in halves(7)] == [[0, 2, 4, 6], [1, 3, 5]]
    assert weights[0] == pytest.approx([1 / 4, 1 / 3] * 3 + [1 / 4])
    for half in halves(7):
        assert weights[:, half].sum(1) == pytest.approx(np.ones(51))
        assert weights[:, half] * len(half) == pytest.approx(np.round(weights[:, half] * len(half)))
    assert len({*map(tuple, weights)}) > 40


def test_holm_on_five_by_hand() -> None:
    """5 x .01, 4 x .02, 3 x .02, 2 x .3, 1 x .4: none below the one before it, none above 1."""
    assert holm([0.02, 0.4, 0.01, 0.3, 0.02]) == pytest.approx([0.08, 0.6, 0.05, 0.6, 0.08])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
