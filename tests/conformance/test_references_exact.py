"""The frontier's reference curves, sampled optimum and best-of-n, against listing everything."""

import numpy as np
import pytest
import torch
from torch import Tensor

from alignlab.evaluation.best_of_n import best_of_n
from alignlab.evaluation.oracle import optimum, optimum_at_kl, reference_reward
from alignlab.functional import inverse_cdf, uniform
from alignlab.results.pool import Pool
from alignlab.worlds.enumerable import EnumerableWorld, random_world

PROMPTS, SAMPLES = 48, 4096


def world_of(ties: bool = False) -> EnumerableWorld:
    return random_world(21, vocabulary=5, length=3, prompts=PROMPTS, ties=ties)[0]


def draw(logps: Tensor, samples: int, seed: int) -> Tensor:
    """Completions ``[P, samples]`` drawn from log-probs ``[P, S]``."""
    prompt = torch.arange(len(logps)).repeat_interleave(samples)
    sample = torch.arange(samples).repeat(len(logps))
    u = uniform(seed, 0, prompt, sample, 0)
    return inverse_cdf(logps[prompt], u).view(len(logps), samples)


def pool_of(world: EnumerableWorld, proposals: dict[str, Tensor], samples: int) -> Pool:
    """A pool with ``samples`` completions per prompt from each proposal's log-probs."""
    texts = torch.cat([draw(q, samples, seed) for seed, q in enumerate(proposals.values())], 1)
    mixture = torch.stack(list(proposals.values())).exp().mean(0).log()
    return Pool(
        prompt_ids=tuple(str(p) for p in range(len(texts))),
        rewards=world.rewards.gather(1, texts).numpy(),
        proxy=None,
        proposals=tuple(proposals),
        proposal=np.arange(len(proposals)).repeat(samples),
        log_ref=world.ref_logps.gather(1, texts).numpy(),
        log_mixture=mixture.gather(1, texts).numpy(),
    )


def per_prompt(world: EnumerableWorld, logps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Exact reward and KL ``[P]`` of log-probs ``[P, S]``."""
    chances = logps.exp()
    kl = torch.special.entr(chances).neg() - chances * world.ref_logps
    return (chances * world.rewards).sum(1).numpy(), kl.sum(1).numpy()


@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_a_pool_of_everything_gives_the_exact_optimum(beta: float) -> None:
    """Every completion once, weighted by the reference's probability, is the world itself."""
    world = world_of()
    solved = optimum(world.rewards.numpy(), beta, world.ref_logps.numpy())
    reward, kl = per_prompt(world, world.optimum(beta).logps)
    np.testing.assert_allclose(solved.reward, reward, atol=1e-12)
    np.testing.assert_allclose(solved.kl, kl, atol=1e-12)


@pytest.mark.parametrize("budget", [0.25, 0.5, 1.0])
def test_sampled_optimum_at_a_budget(budget: float) -> None:
    """One beta for all prompts: bias and noise of 4,096 samples stay under 1 % of the gain."""
    world = world_of()
    solved = optimum_at_kl(pool_of(world, {"reference": world.ref_logps}, SAMPLES), budget)
    assert solved is not None
    assert solved.reliable
    exact = world.optimum(world.beta_for_kl(budget))
    start = world.reward(world.ref_logps)
    assert solved.beta == pytest.approx(exact.beta, rel=0.03)
    assert solved.reward.mean() - start == pytest.approx(exact.reward - start, rel=0.01)


def test_trained_policies_as_proposals_extend_the_optimums_range() -> None:
    """At 2 nats the reference alone is too thin; half the samples from a good policy suffice."""
    world, budget = world_of(), 2.0
    exact = world.optimum(world.beta_for_kl(budget))
    alone = optimum_at_kl(pool_of(world, {"reference": world.ref_logps}, 256), budget)
    helper = world.optimum(2 * exact.beta).logps
    proposals = {"reference": world.ref_logps, "helper": helper}
    helped = optimum_at_kl(pool_of(world, proposals, 256), budget)
    assert alone is not None
    assert helped is not None
    assert not alone.reliable
    assert helped.ess_reached > 2 * alone.ess_reached
    assert helped.reward.mean() == pytest.approx(exact.reward, rel=0.01)


def test_reference_reward_is_that_of_the_reference_whoever_sampled() -> None:
    world = world_of()
    proposals = {"reference": world.ref_logps, "helper": world.optimum(0.5).logps}
    estimate = reference_reward(pool_of(world, proposals, SAMPLES))
    exact, _ = per_prompt(world, world.ref_logps)
    np.testing.assert_allclose(estimate, exact, atol=0.12)
    assert abs((estimate - exact).mean()) < 0.005


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_best_of_n_of_the_enumerated_world(n: int, ties: bool) -> None:
    world = world_of(ties)
    rewards = world.rewards.numpy()
    ours = best_of_n(rewards, rewards, n, probabilities=world.ref_logps.exp().numpy())
    reward, kl = per_prompt(world, world.best_of_n(n))
    np.testing.assert_allclose(ours.reward, reward, atol=1e-12)
    np.testing.assert_allclose(ours.kl, kl, atol=1e-10)
    bound = np.log(n) - (n - 1) / n
    assert (ours.kl <= bound + 1e-12).all()
    if ties and n > 1:
        assert (ours.kl < 0.95 * bound).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_best_of_n_of_sampled_completions(n: int, ties: bool) -> None:
    """Equal completions and equal rewards are levels in a pool as in the world."""
    world = world_of(ties)
    rewards = pool_of(world, {"reference": world.ref_logps}, SAMPLES).rewards
    ours = best_of_n(rewards, rewards, n)
    reward, kl = per_prompt(world, world.best_of_n(n))
    assert ours.reward.mean() == pytest.approx(reward.mean(), abs=0.01)
    assert ours.kl.mean() == pytest.approx(kl.mean(), rel=0.02, abs=1e-12)


def test_the_optimum_bounds_best_of_n() -> None:
    """At best-of-n's own KL nothing does better than pi*, and the reference does worse."""
    world = world_of()
    for n in (2, 4, 16):
        logps = world.best_of_n(n)
        best = world.optimum(world.beta_for_kl(world.kl(logps)))
        start = world.reward(world.ref_logps)
        share = (world.reward(logps) - start) / (best.reward - start)
        assert 0.8 < share < 1
