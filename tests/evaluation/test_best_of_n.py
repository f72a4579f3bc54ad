"""Best-of-n against enumeration of all n-tuples, ties included."""

import itertools

import numpy as np
import pytest

from alignlab.errors import DataError
from alignlab.evaluation.best_of_n import best_of_n, best_of_n_curve
from tests.evaluation.worlds import World


def enumerated(ref: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """pi_n by listing every n-tuple of completions; ties go to the first drawn."""
    out = np.zeros(len(ref))
    for draw in itertools.product(range(len(ref)), repeat=n):
        out[max(draw, key=lambda y: score[y])] += np.prod(ref[list(draw)])
    return out


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("levels", [2, 3, 0])
def test_agrees_with_listing_every_draw(n: int, levels: int) -> None:
    world = World(3, 6, seed=n, levels=levels)
    gold = np.random.default_rng(0).normal(size=world.reward.shape)
    for reported in (world.reward, gold):
        found = best_of_n(world.reward, reported, n, probabilities=world.ref)
        for p in range(3):
            policy = enumerated(world.ref[p], world.reward[p], n)
            assert found.reward[p] == pytest.approx(sum(policy * reported[p]), rel=1e-10)
            kl = sum(a * np.log(a / b) for a, b in zip(policy, world.ref[p], strict=True))
            assert found.kl[p] == pytest.approx(kl, abs=1e-10)


@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_without_ties_kl_meets_its_closed_form(n: int) -> None:
    """log n - (n - 1) / n for an atomless reward; 4,096 samples are close to atomless."""
    rewards = np.random.default_rng(0).normal(size=(1, 4096))
    bound = np.log(n) - (n - 1) / n
    assert best_of_n(rewards, rewards, n).kl[0] == pytest.approx(bound, rel=1e-2)


def test_a_binary_reward_worked_by_hand() -> None:
    """P(good) = 1 - 1/16 of four at even odds; KL = 15/16 log(15/8) + 1/16 log(1/8).

    Of 32 good and 32 bad samples four different ones are all bad with 32 * 31 * 30 * 29 chances in
    64 * 63 * 62 * 61.
    """
    rewards = np.array([[0.0, 1.0] * 32])
    known = best_of_n(rewards, rewards, 4, probabilities=np.full((1, 64), 1 / 64))
    assert known.reward[0] == pytest.approx(15 / 16)
    found = best_of_n(rewards, rewards, 4)
    bad = 32 * 31 * 30 * 29 / (64 * 63 * 62 * 61)
    assert found.reward[0] == pytest.approx(1 - bad, rel=1e-12)
    assert found.kl[0] == pytest.approx(15 / 16 * np.log(15 / 8) + np.log(1 / 8) / 16)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("levels", [3, 0])
def test_a_pool_is_the_mean_over_all_its_subsets(n: int, levels: int) -> None:
    """The best of a subset; of several best ones their mean reported reward."""
    ranking = World(2, 8, seed=n, levels=levels).reward
    gold = np.random.default_rng(1).normal(size=ranking.shape)
    found = best_of_n(ranking, gold, n)
    for p in range(2):
        bests = []
        for subset in itertools.combinations(range(8), n):
            top = max(ranking[p][list(subset)])
            bests.append(np.mean([gold[p][y] for y in subset if ranking[p][y] == top]))
        assert found.reward[p] == pytest.approx(np.mean(bests), rel=1e-12)


@pytest.mark.parametrize(("n", "gain"), [(2, 0.5641896), (4, 1.0293754), (32, 2.0696688)])
def test_the_gain_of_16_n_samples_is_that_of_the_whole_distribution(n: int, gain: float) -> None:
    """Means of the largest of n standard normals (Harter 1961); plain F^n is 3 % low at n = 2."""
    rewards = np.random.default_rng(2).normal(size=(4000, 16 * n))
    found = best_of_n(rewards, rewards, n).reward
    standard_error = found.std() / np.sqrt(len(found))
    assert found.mean() == pytest.approx(gain, abs=3 * standard_error)
    assert 3 * standard_error < 0.015


def test_an_impossible_completion_is_no_level() -> None:
    rewards = np.array([[9.0, 1.0, 2.0]])
    found = best_of_n(rewards, rewards, 3, probabilities=np.array([[0.0, 0.5, 0.5]]))
    assert found.reward[0] == pytest.approx(2 - 1 / 8)


def test_the_curve_stops_where_the_pool_is_too_small_and_uses_reference_samples() -> None:
    world = World(4, 30, seed=1)
    pool = world.pool(100, 0, [world.tilted(0.1)], 900)
    curve = best_of_n_curve(pool, by_proxy=False)
    assert [point.n for point in curve] == [1, 2, 4]  # 8 needs 128 samples
    assert curve[0].reward == pytest.approx(pool.rewards[:, :100].mean(1))
    assert curve[0].kl == pytest.approx(np.zeros(4), abs=1e-12)


def test_ranking_by_the_learned_reward_reports_the_gold_one() -> None:
    pool = World(4, 30, seed=1).pool(64, 0)  # the proxy is minus the reward
    gold = best_of_n_curve(pool, by_proxy=False)
    proxy = best_of_n_curve(pool, by_proxy=True)
    assert (gold[2].reward > gold[0].reward).all()
    assert (proxy[2].reward < proxy[0].reward).all()


def test_bad_calls() -> None:
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        best_of_n(np.zeros((1, 2)), np.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match="got 3 for 2 completions"):
        best_of_n(np.zeros((1, 2)), np.zeros((1, 2)), 3)
    with pytest.raises(DataError, match="no proxy_reward"):
        best_of_n_curve(World(2, 5, seed=0).exact_pool(), by_proxy=True)
