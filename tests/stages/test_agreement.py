"""Accuracy, confidence and their intervals, worked by hand and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from alignlab.results.statistics import share_interval, wilson_interval
from alignlab.stages.agreement import agreement


def test_worked_by_hand() -> None:
    """Gaps log 3, -log 3, log 19, 0: confidence 3/4, 3/4, 19/20, 1/2; right 1, 0, 1, 1/2."""
    found = agreement([math.log(3), -math.log(3), math.log(19), 0.0], ["a", "b", "c", "d"], bins=5)
    assert (found.pairs, found.prompts) == (4, 4)
    assert found.accuracy == 2.5 / 4
    assert found.log_loss == pytest.approx(
        -(math.log(3 / 4) + math.log(1 / 4) + math.log(19 / 20) + math.log(1 / 2)) / 4
    )
    told = [x for b in found.bins for x in (b.lo, b.hi, b.pairs, b.confidence, b.right)]
    first, second, third = (0.5, 0.6, 1, 0.5, 0.5), (0.7, 0.8, 2, 0.75, 0.5), (0.9, 1, 1, 0.95, 1)
    assert told == pytest.approx([*first, *second, *third])
    assert found.calibration_error == pytest.approx((0 + 2 * 0.25 + 0.05) / 4)


def test_the_surest_pairs_are_in_the_last_bin() -> None:
    found = agreement([800.0, 50.0, -800.0], ["a", "b", "c"])
    assert [b.pairs for b in found.bins] == [3]
    assert found.bins[0].hi == 1.0
    assert found.log_loss == pytest.approx(800 / 3)


def test_a_model_that_says_what_it_knows_is_calibrated() -> None:
    """Choices drawn from the very probabilities: no bin further off than chance."""
    rng = np.random.default_rng(0)
    gaps = rng.normal(scale=2, size=20_000)
    first = rng.random(len(gaps)) < 1 / (1 + np.exp(-gaps))
    found = agreement(np.where(first, gaps, -gaps), range(len(gaps)))
    assert len(found.bins) == 10
    for b in found.bins:
        assert abs(b.confidence - b.right) < 4 * math.sqrt(b.right * (1 - b.right) / b.pairs)
    assert found.calibration_error < 0.02
    doubled = agreement(2 * np.where(first, gaps, -gaps), range(len(gaps)))
    assert doubled.calibration_error > 0.05
    assert doubled.accuracy == found.accuracy


def test_independent_pairs_have_wilsons_interval() -> None:
    values = [1.0] * 30 + [0.0] * 10
    assert share_interval(values, range(40)) == pytest.approx(wilson_interval(30, 40))


def test_pairs_that_always_agree_count_as_one() -> None:
    """Each prompt's four pairs are copies: the interval of 10 pairs, not of 40."""
    values = [float(k % 10 < 7) for k in range(40)]
    names = [k % 10 for k in range(40)]
    found = share_interval(values, names)
    wanted = wilson_interval(7, 10)
    assert found.hi - found.lo == pytest.approx(wanted.hi - wanted.lo, abs=0.04)
    naive = share_interval(values, range(40))
    assert found.hi - found.lo > 1.7 * (naive.hi - naive.lo)


def test_without_any_variation_a_prompt_counts_as_one() -> None:
    assert share_interval([1.0] * 12, [k // 3 for k in range(12)]) == wilson_interval(4, 4)
    assert share_interval([0.0], ["a"]) == wilson_interval(0, 1)


def test_coverage_with_clustered_pairs() -> None:
    """95 % intervals of clustered coin flips hold the truth about as often as they say."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        chance = rng.choice([0.4, 0.9], size=60)  # mean 0.65
        values = (rng.random((60, 4)) < chance[:, None]).astype(float)
        lo, hi = share_interval(values.ravel(), [k // 4 for k in range(240)])
        held += lo <= 0.65 <= hi
    assert stats.binom.cdf(held, 400, 0.95) > 1e-3
    assert held > 360
