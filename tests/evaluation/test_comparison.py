import math

import numpy as np
import pytest

from alignlab.evaluation.comparison import Replicates, compare, hypervolumes

GRID = [0.5, 1.0, 2.0]


def replicates(
    observed: list[list[float]], *, seeds: tuple[int, ...], largest: list[float]
) -> Replicates:
    """Observed rewards ``[S][G]`` and two replicates around them, one above and one below."""
    values = np.array(observed)[:, None, :] + np.array([0.0, 0.1, -0.1])[None, :, None]
    return Replicates(values=values, seeds=seeds, largest=np.array(largest))


def test_what_seeds_and_prompts_share_drops_out_of_a_difference() -> None:
    a = replicates([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]], seeds=(0, 1), largest=[2.0, 2.0])
    b = replicates([[0.5, 1.0, 3.0], [4.5, 5.0, 7.0]], seeds=(0, 1), largest=[2.0, 1.0])
    rows = compare({"b": b, "a": a}, GRID, [0.5, 1.0, 2.0], 101)
    # At KL 2 only one of b's two seeds is there, which is no majority.
    assert [(r.objective, r.other, r.kl_budget, r.n_seeds) for r in rows] == [
        ("a", "b", 0.5, 2), ("a", "b", 1.0, 2),
    ]  # fmt: skip
    assert [(r.difference, r.lo, r.hi) for r in rows] == [
        pytest.approx((0.5, 0.5, 0.5)), pytest.approx((1.0, 1.0, 1.0)),
    ]  # fmt: skip


def test_other_seeds_are_compared_by_their_means() -> None:
    """Seeds at 1, 5 and at 0, 2: difference 2; t(1) = 12.706 times the standard errors 2 and 1."""
    a = replicates([[1.0], [5.0]], seeds=(0, 1), largest=[1.0, 1.0])
    b = replicates([[0.0], [2.0]], seeds=(2, 3), largest=[1.0, 1.0])
    (row,) = compare({"a": a, "b": b}, [0.5], [0.5], 101)
    assert row.difference == pytest.approx(2.0)
    assert row.hi - row.difference == pytest.approx(12.7062 * math.sqrt(5), rel=1e-4)


def test_hypervolume_is_the_area_over_the_reference() -> None:
    """Gains 0, 1, 2, 2 at KL 0, 0.5, 1, 2: 0.25 + 0.75 = 1, and 2 more to KL 2; b ends before."""
    a = replicates([[1.0, 2.0, 2.0]], seeds=(0,), largest=[2.5])
    b = replicates([[0.0, 0.0, 0.0]], seeds=(0,), largest=[1.5])
    rows = hypervolumes({"b": b, "a": a}, np.zeros(3), GRID, [1.0, 2.0, 3.0], 101)
    assert [(r.objective, r.kl_max) for r in rows] == [("a", 1.0), ("b", 1.0), ("a", 2.0)]
    assert [r.hypervolume for r in rows] == pytest.approx([1.0, 0.0, 3.0])


def test_a_spread_is_what_the_interval_is_made_of() -> None:
    """Differences 0.5, 0.5, 2.0 of three seeds: sd 0.866; replicates 0.2 and -0.2 around them.

    The half-width is t(2) = 4.303 standard errors of seeds, and t(100) = 1.984 of prompts.
    """
    a = replicates([[1.0], [2.0], [3.0]], seeds=(0, 1, 2), largest=[1.0] * 3)
    values = np.array([0.5, 1.5, 1.0])[:, None] + np.array([0.0, -0.1, 0.1])
    b = Replicates(values=values[:, :, None], seeds=(0, 1, 2), largest=np.ones(3))
    ((row, spread),) = compare({"a": a, "b": b}, [0.5], [0.5], 101).items()
    assert (spread.seeds, spread.prompts) == (3, 101)
    assert spread.difference == pytest.approx(1.0)
    assert spread.seed_sd == pytest.approx(math.sqrt(0.75))
    assert spread.prompt_sd == pytest.approx(math.sqrt(0.08) * math.sqrt(101))
    half = math.hypot(4.30265 * math.sqrt(0.25), 1.98397 * math.sqrt(0.08))
    assert row.hi - row.difference == pytest.approx(half, rel=1e-4)


def test_the_spread_of_other_seeds_is_that_of_their_pairs() -> None:
    """Variances 8 and 2 over the seeds of a and b: a pair has 10."""
    a = replicates([[1.0], [5.0]], seeds=(0, 1), largest=[1.0, 1.0])
    b = replicates([[0.0], [2.0]], seeds=(2, 3), largest=[1.0, 1.0])
    (spread,) = compare({"a": a, "b": b}, [0.5], [0.5], 101).values()
    assert spread.seeds == 2
    assert spread.seed_sd == pytest.approx(math.sqrt(10))
