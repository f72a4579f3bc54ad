import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from alignlab.evaluation.comparison import (
    SMALLEST,
    Replicates,
    against,
    compare,
    hypervolumes,
    p_value,
)
from alignlab.results.statistics import t_quantile

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


def test_prompts_are_told_from_their_interaction_with_seeds() -> None:
    """The analysis of variance of differences of 4 seeds on 50 prompts, two-way, no replication.

    Its mean square of what is left is the interaction, and (mean square of prompts less it) / 4
    the prompts' variance. The bootstrap divides by 50 where it divides by 49.
    """
    rng = np.random.default_rng(3)
    each = rng.normal(size=50) + rng.normal(size=(4, 1)) + 2 * rng.normal(size=(4, 50))
    left = each - each.mean(0) - each.mean(1, keepdims=True) + each.mean()
    interaction = (left**2).sum() / (3 * 49)
    prompts = (4 * each.mean(0).var(ddof=1) - interaction) / 4
    weights = rng.multinomial(50, np.full(50, 1 / 50), size=20_000) / 50
    values = np.hstack([each.mean(1, keepdims=True), each @ weights.T])
    found = Replicates(values=values[:, :, None], seeds=(0, 1, 2, 3), largest=np.ones(4))
    nothing = replace(found, values=np.zeros_like(found.values))
    (spread,) = compare({"a": found, "b": nothing}, [0.5], [0.5], 50).values()
    assert spread.interaction_sd == pytest.approx(math.sqrt(interaction * 49 / 50), rel=0.01)
    assert spread.prompt_sd == pytest.approx(math.sqrt(prompts * 49 / 50), rel=0.03)


def test_the_spread_of_other_seeds_is_that_of_their_pairs() -> None:
    """Variances 8 and 2 over the seeds of a and b: a pair has 10."""
    a = replicates([[1.0], [5.0]], seeds=(0, 1), largest=[1.0, 1.0])
    b = replicates([[0.0], [2.0]], seeds=(2, 3), largest=[1.0, 1.0])
    (spread,) = compare({"a": a, "b": b}, [0.5], [0.5], 101).values()
    assert spread.seeds == 2
    assert spread.seed_sd == pytest.approx(math.sqrt(10))


def five_seeds() -> dict[str, Replicates]:
    """Rewards whose differences from ``dpo`` over five seeds are 1 to 5 (a) and 2 each (b)."""
    seeds, reached = (0, 1, 2, 3, 4), [2.0] * 5
    base = [[float(s)] * 3 for s in range(5)]
    first = [[s + (s + 1.0)] * 3 for s in range(5)]
    second = [[s + 2.0] * 3 for s in range(5)]
    return {
        name: replicates(rows, seeds=seeds, largest=reached)
        for name, rows in (("dpo", base), ("a", first), ("b", second))
    }


def test_objectives_are_tested_against_a_base_in_shares_of_the_gain() -> None:
    """Differences 1 to 5 of a gain of 2: mean 1.5, t = 3 / (1.5811 / sqrt(5)) = 4.243, 4 df.

    Replicates move both alike, so prompts add nothing, and b has no error at all.
    """
    gains = np.full((3, 3), 2.0)
    rows = against(five_seeds(), "dpo", gains, GRID, [0.5, 1.0], 101)
    assert [(row.objective, row.base, row.kl_budget) for row in rows] == [
        ("a", "dpo", 0.5), ("b", "dpo", 0.5), ("a", "dpo", 1.0), ("b", "dpo", 1.0),
    ]  # fmt: skip
    a, b = rows[2:]
    assert a.difference == pytest.approx(1.5)
    assert b.difference == pytest.approx(1.0)
    assert a.hi is not None
    assert a.hi - 1.5 == pytest.approx(2.7764 * math.sqrt(0.5) / 2, rel=1e-4)
    assert a.p == pytest.approx(0.01324, rel=1e-3)
    assert b.p == pytest.approx(SMALLEST)
    assert a.p_holm == a.p
    assert b.p_holm == pytest.approx(2 * SMALLEST)
    assert all(row.p is None and row.p_holm is None for row in rows[:2])
    assert a.seeds_needed is None  # it is resolved


def test_seeds_that_resolve_a_difference_at_the_strictest_level_of_the_correction() -> None:
    """Differences of mean 0.6 and sd 2.07, one of three tests: the t-test at 0.05 / 3 has a power
    of 0.8 from these seeds on (noncentral t)."""
    base = five_seeds()["dpo"]
    apart = np.array([-1.0, 1.0, 3.0, -2.0, 2.0])[:, None, None]
    found = five_seeds() | {
        "c": Replicates(values=base.values + apart, seeds=base.seeds, largest=base.largest)
    }
    rows = against(found, "dpo", np.full((3, 3), 2.0), GRID, [1.0], 101)
    (c,) = [row for row in rows if row.objective == "c"]
    assert c.p_holm is not None
    assert c.p_holm > 0.05
    assert c.seeds_needed is not None

    def power(n: int) -> float:
        bound = stats.t.ppf(1 - 0.05 / 3 / 2, n - 1)
        return float(stats.nct.sf(bound, n - 1, 0.6 / (apart.std(ddof=1) / math.sqrt(n))))

    assert power(c.seeds_needed + 1) > 0.8 > power(c.seeds_needed - 2)
    assert [row.seeds_needed for row in rows if row.objective != "c"] == [None, None]


def test_a_base_that_is_not_reached_leaves_a_row_without_numbers() -> None:
    found = five_seeds() | {"c": replicates([[1.0] * 3], seeds=(0,), largest=[0.7])}
    rows = against(found, "dpo", np.full((3, 3), 2.0), GRID, [1.0], 101)
    (c,) = [row for row in rows if row.objective == "c"]
    assert (c.difference, c.p, c.p_holm, c.n_seeds) == (None, None, None, 0)
    assert [row.p_holm for row in rows if row.objective == "a"] == [
        pytest.approx(0.01324, rel=1e-3)  # of two tests, not of three
    ]


def test_a_paired_bootstrap_by_hand() -> None:
    """Gain 4; differences 1 and, in four replicates, 0, 2, 0, 2, of shares .25, 0, .5, 0, .5.

    Their standard deviation is .28868; t = .25 / .28868 = .866 with 100 degrees of freedom. The
    two objectives move by 10 together, which a test that is not paired would count.
    """
    together = np.array([0.0, 10.0, -10.0, -10.0, 10.0])
    a = Replicates(
        values=(together + np.array([1.0, 0.0, 2.0, 0.0, 2.0]))[None, :, None],
        seeds=(0,),
        largest=np.ones(1),
    )
    b = Replicates(values=together[None, :, None], seeds=(0,), largest=np.ones(1))
    (row,) = against({"a": a, "b": b}, "b", np.full((5, 1), 4.0), [1.0], [1.0], 101)
    assert row.difference == pytest.approx(0.25)
    assert row.hi == pytest.approx(0.25 + 1.98397 * 0.288675, rel=1e-4)
    assert row.p == pytest.approx(0.38856, rel=1e-3)


@pytest.mark.parametrize("level", [0.05, 0.001])
def test_an_interval_just_touches_0_at_the_p_value(level: float) -> None:
    """An unpaired difference with both sources of error, moved until 95 % (99.9 %) end at 0."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(4, 200)), rng.normal(size=(3, 200))]
    half = math.hypot(
        t_quantile(100, 1 - level) * float((parts[0].mean(0) + parts[1].mean(0))[1:].std(ddof=1)),
        *(
            t_quantile(len(part) - 1, 1 - level) * float(part[:, 0].std(ddof=1)) / len(part) ** 0.5
            for part in parts
        ),
    )
    moved = [parts[0] - parts[0][:, 0].mean() - parts[1][:, 0].mean() + half, parts[1]]
    assert p_value(moved, 101) == pytest.approx(level, rel=1e-6)
