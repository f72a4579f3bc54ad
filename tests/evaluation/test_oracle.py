"""The importance-sampled optimum against enumeration."""

import numpy as np
import pytest

from alignlab.evaluation.oracle import (
    MIN_BOUND_ESS,
    OracleCurve,
    log_z_by_half,
    optimum,
    optimum_at_kl,
    oracle_efficiency,
    reference_reward,
)
from alignlab.results.pool import Pool
from tests.evaluation.worlds import World


def test_two_samples_worked_by_hand() -> None:
    """r = 0 and log 3 at beta 1: w = 1/4, 3/4; Z = (1 + 3) / 2 = 2; KL = 3/4 log 3 - log 2."""
    solved = optimum(np.array([[0.0, np.log(3)]]), 1.0)
    assert solved.reward[0] == pytest.approx(0.75 * np.log(3))
    assert solved.log_z[0] == pytest.approx(np.log(2))
    assert solved.kl[0] == pytest.approx(0.75 * np.log(3) - np.log(2))
    assert solved.ess[0] == pytest.approx(1 / (1 / 16 + 9 / 16))


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_a_pool_that_is_the_reference_gives_the_exact_optimum(beta: float) -> None:
    world = World(5, 12, seed=0)
    policy = world.tilted(beta)
    pool = world.exact_pool()
    solved = optimum(pool.rewards, beta, pool.log_ratio)
    assert solved.reward == pytest.approx(world.mean_reward(policy), rel=1e-10)
    assert solved.kl == pytest.approx(world.kl(policy), rel=1e-9)
    z = [sum(q * np.exp(r / beta)) for q, r in zip(world.ref, world.reward, strict=True)]
    assert solved.log_z == pytest.approx(np.log(z), rel=1e-10)
    assert reference_reward(pool) == pytest.approx(world.mean_reward(world.ref), rel=1e-12)


def test_infinite_beta_is_the_reference_and_tiny_beta_its_best_sample() -> None:
    rewards = np.array([[1.0, 5.0, 3.0, 3.0]])
    free = optimum(rewards, np.inf)
    assert (free.reward[0], free.kl[0], free.ess[0]) == pytest.approx((3.0, 0.0, 4.0))
    greedy = optimum(rewards, 1e-9)
    assert (greedy.reward[0], greedy.kl[0], greedy.ess[0]) == pytest.approx((5.0, np.log(4), 1.0))
    with pytest.raises(ValueError, match="beta must be > 0"):
        optimum(rewards, 0.0)


def test_rewards_far_from_zero_do_not_overflow() -> None:
    rewards = np.array([[1e4, 1e4 + 1.0]])
    shifted = optimum(rewards, 0.5)
    plain = optimum(rewards - 1e4, 0.5)
    assert shifted.kl == pytest.approx(plain.kl, rel=1e-9)
    assert shifted.reward - 1e4 == pytest.approx(plain.reward, rel=1e-9)


@pytest.mark.parametrize("budget", [0.25, 0.5, 1.0])
def test_one_beta_meets_the_mean_budget(budget: float) -> None:
    world = World(6, 20, seed=1)
    solved = optimum_at_kl(world.exact_pool(), budget)
    assert solved is not None
    assert solved.kl.mean() == pytest.approx(budget, abs=1e-9)
    assert solved.kl.std() > 0.01  # prompts spend what is worth it, not all the same
    assert solved.reward.mean() == pytest.approx(world.optimum_at(budget)[0], rel=1e-8)


def test_a_budget_beyond_the_pool_is_unknown() -> None:
    pool = World(4, 6, seed=2).pool(64, seed=0)
    assert optimum_at_kl(pool, 5.0) is None  # even the single best of 64 is log 64 = 4.2 nats away
    with pytest.raises(ValueError, match="must be > 0"):
        optimum_at_kl(pool, 0.0)


def test_a_constant_reward_has_no_frontier() -> None:
    world = World(4, 6, seed=2)
    world.reward[:] = 1.0
    assert optimum_at_kl(world.exact_pool(), 0.5) is None


def test_reference_samples_agree_with_enumeration_within_their_errors() -> None:
    world = World(64, 50, seed=3)
    exact = world.optimum_at(0.5)[0]
    found = []
    for seed in range(10):
        solved = optimum_at_kl(world.pool(2048, seed), 0.5)
        assert solved is not None
        assert solved.reliable
        found.append(float(solved.reward.mean()))
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / np.sqrt(10) + 2e-3)
    assert np.std(found) < 0.02


def test_multiple_importance_sampling_is_exact_where_reference_samples_end() -> None:
    """At KL 2 the reference's samples are too few; with two tilted policies the pool reaches."""
    world = World(32, 400, seed=4)
    exact, _ = world.optimum_at(2.0)
    alone = optimum_at_kl(world.pool(384, 0), 2.0)
    assert alone is None or not alone.reliable
    # Proposals that are not the optimum: it must not matter what they are.
    noisy = world.reward + 0.5 * np.random.default_rng(0).normal(size=world.reward.shape)
    others = [world.tilted(1.0, noisy), world.tilted(0.4, noisy)]
    found = []
    for seed in range(8):
        pool = world.pool(128, seed, others, 128)
        solved = optimum_at_kl(pool, 2.0)
        assert solved is not None
        found.append(float(solved.reward.mean()))
        r_ref = float(reference_reward(pool).mean())
        assert r_ref == pytest.approx(world.mean_reward(world.ref).mean(), abs=0.1)
    gain = exact - world.mean_reward(world.ref).mean()
    assert np.mean(found) == pytest.approx(exact, abs=0.01 * gain)


def test_effective_sample_size_that_95_percent_reach() -> None:
    rewards = np.zeros((40, 200))
    rewards[:2, 0] = 100.0  # two prompts of forty: 5 %, still fine
    assert optimum(rewards, 1.0).reliable
    assert optimum(rewards, 1.0).ess_reached == pytest.approx(200)
    rewards[2, 0] = 100.0
    spoiled = optimum(rewards, 1.0)
    assert not spoiled.reliable
    assert spoiled.ess_reached == pytest.approx(1)


def test_the_curve_solves_every_budget_and_any_reweighting_of_prompts() -> None:
    world = World(6, 20, seed=5)
    budgets = np.array([1.0, 0.25, 50.0])
    curve = OracleCurve(world.exact_pool(), budgets)
    assert curve.optima[2] is None
    solved = curve.optima[1]
    assert solved is not None
    assert solved.reward.mean() == pytest.approx(world.optimum_at(0.25)[0], rel=1e-8)
    weights = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 1, 2, 0, 0]]) / 6
    values = curve.resampled(weights)
    assert np.isnan(values[:, 2]).all()
    assert values[0, 0] == pytest.approx(world.optimum_at(1.0)[0], rel=1e-3)
    # The second row's world: three copies of the first prompt, one of the third, two of the fourth.
    copies = World(6, 20, seed=5)
    rows = [0, 0, 0, 2, 3, 3]
    copies.ref, copies.reward = world.ref[rows], world.reward[rows]
    for k, budget in enumerate((1.0, 0.25)):
        assert values[1, k] == pytest.approx(copies.optimum_at(budget)[0], rel=1e-3)


def test_a_curve_of_unreachable_budgets_is_empty() -> None:
    curve = OracleCurve(World(4, 6, seed=2).exact_pool(), np.array([50.0, 60.0]))
    assert curve.optima == [None, None]
    assert np.isnan(curve.resampled(np.full((3, 4), 0.25))).all()


def test_efficiency_is_the_share_of_the_gain() -> None:
    assert oracle_efficiency(2.5, 1.0, 3.0) == 0.75


def test_a_tangent_worked_by_hand() -> None:
    """Terms exp(r) pi_ref / m of two proposals, 2 and 4 samples, shares 1/3 and 2/3.

    Samples 0, 2 and 4 are one half: Z_A = 1/3 * 2 + 2/3 * (1 + 4) / 2 = 7/3, and the others
    Z_B = 1/3 * 4 + 2/3 * (2 + 8) / 2 = 14/3. The tangents are log Z_A + Z_B / Z_A - 1
    and the reverse.
    """
    ratio = np.log([[0.5, 0.5, 2.0, 2.0, 2.0, 2.0]])
    terms = np.array([[2.0, 4.0, 1.0, 2.0, 4.0, 8.0]])
    pool = Pool(
        prompt_ids=("p",),
        rewards=(np.log(terms) - ratio) * 3.0,
        proxy=None,
        proposals=("reference", "other"),
        proposal=np.array([0, 0, 1, 1, 1, 1]),
        log_ref=ratio,
        log_mixture=np.zeros((1, 6)),
    )
    found = log_z_by_half(pool, 3.0)
    a, b = 7 / 3, 14 / 3
    assert found.plain[:, 0] == pytest.approx(np.log([a, b]))
    assert found.above[:, 0] == pytest.approx([np.log(a) + b / a - 1, np.log(b) + a / b - 1])
    # A mean of two samples: half of ((1 - 2.5)^2 + (4 - 2.5)^2) / (2 - 1), and of 2 and 8 18 / 2;
    # both times the squared share 4/9. One sample alone has no variance.
    assert found.variance[:, 0] == pytest.approx([4.0 / a**2, 1.0 / b**2])


def test_the_dual_bound_lies_above_the_optimum_where_the_plain_estimate_lies_below() -> None:
    """50 pools of an enumerated world: the mean errs upwards, 95 % of the limits hold."""
    world = World(24, 100, seed=6)
    exact = world.optimum_at(1.5)[0]
    z = np.array(
        [
            sum(q * np.exp(r / 0.5) for q, r in zip(ref, reward, strict=True))
            for ref, reward in zip(world.ref, world.reward, strict=True)
        ]
    )
    plain, above, found = [], [], []
    for seed in range(50):
        pool = world.pool(48, seed, [world.tilted(1.0)], 48)
        logs = log_z_by_half(pool, 0.5)
        above.append((logs.above - np.log(z)).mean())
        plain.append((logs.plain - np.log(z)).mean())
        (bound,) = OracleCurve(pool, np.array([1.5])).bounds()
        assert bound is not None
        found.append(bound)
    error = np.std(above) / 50**0.5
    assert np.mean(plain) < -3 * error
    assert np.mean(above) > 3 * error
    rewards, limits = np.array(found).T
    assert rewards.mean() > exact
    assert (limits > exact).mean() >= 0.95
    assert rewards.mean() < exact + 0.05 * (exact - world.mean_reward(world.ref).mean())


def test_no_bound_from_too_few_samples() -> None:
    world = World(24, 400, seed=4)
    curve = OracleCurve(world.pool(96, 0), np.array([0.25, 2.5, 50.0]))
    near, far, beyond = curve.bounds()
    assert near is not None
    assert curve.optima[1] is not None
    assert curve.optima[1].ess_reached < MIN_BOUND_ESS
    assert (far, beyond) == (None, None)
    lone = world.pool(96, 0, [world.tilted(1.0)], 3)  # one half has a single sample of it
    assert OracleCurve(lone, np.array([0.25])).bounds() == [None]
