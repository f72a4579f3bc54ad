"""How the policy gradients follow from each other, from REINFORCE to PPO: exact, by enumeration."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.functional import leave_one_out, rewards_to_go
from alignlab.objectives.cispo import cispo_loss
from alignlab.objectives.grpo import grpo_loss
from alignlab.objectives.gspo import gspo_loss
from alignlab.objectives.ppo import ppo_loss
from alignlab.objectives.reinforce import reinforce_loss
from alignlab.objectives.reinforce_pp import reinforce_pp_loss
from alignlab.objectives.rloo import rloo_loss
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, random_world

KL_COEF = 0.5


def setting(length: int) -> tuple[EnumerableWorld, TabularPolicy, TabularPolicy]:
    """One prompt, a reference, and a policy some way off it."""
    world, reference = random_world(3, vocabulary=4, length=length)
    generator = torch.Generator().manual_seed(4)
    step = 0.5 * torch.randn(reference.logits.shape, generator=generator, dtype=torch.float64)
    return world, reference, TabularPolicy(world.completions, reference.logits + step)


def gradient(loss: Tensor, policy: TabularPolicy) -> Tensor:
    return torch.autograd.grad(loss, policy.logits, retain_graph=True)[0]


def test_without_clipping_samples_of_another_policy_give_this_ones_gradient() -> None:
    """E_old[ratio * A * grad log pi] = E_pi[A * grad log pi], where a completion is one token.

    Clipping at 0.2 loses part of it: the policies are further apart than that.
    """
    world, old, policy = setting(length=1)
    assert int(world.completions.mask.sum()) == 4
    wanted = gradient(-(policy.sequence_logps().exp() * world.rewards).sum(), policy)
    logps, old_logps = policy.token_logps()[0], old.token_logps()[0].detach()
    weighted = old_logps.exp() * world.rewards[0][:, None]
    mask = world.completions.mask

    def found(clip_epsilon: float) -> Tensor:
        loss, _ = ppo_loss(logps, old_logps, weighted, mask, clip_epsilon=clip_epsilon)
        return gradient(loss, policy)

    assert_close(found(torch.inf), wanted, atol=1e-12, rtol=0)
    assert (found(0.2) - wanted).abs().max() > 0.01


def test_on_long_completions_every_tokens_score_is_weighted_by_its_own_ratio() -> None:
    world, old, policy = setting(length=3)
    mask = world.completions.mask
    g = torch.Generator().manual_seed(5)
    advantages = torch.randn(mask.shape, generator=g, dtype=torch.float64)
    logps, old_logps = policy.token_logps()[0], old.token_logps()[0].detach()
    loss, _ = ppo_loss(logps, old_logps, advantages, mask, clip_epsilon=torch.inf)
    wanted = torch.zeros_like(policy.logits)
    for s, t in mask.nonzero().tolist():
        ratio = (logps[s, t].detach() - old_logps[s, t]).exp()
        wanted -= ratio * advantages[s, t] * gradient(logps[s, t], policy)
    assert_close(gradient(loss, policy), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("clip_epsilon", [0.01, 0.2, torch.inf])
def test_the_first_minibatch_of_ppo_is_reinforce(clip_epsilon: float) -> None:
    world, _, policy = setting(length=3)
    mask = world.completions.mask
    g = torch.Generator().manual_seed(5)
    advantages = torch.randn(mask.shape, generator=g, dtype=torch.float64)
    logps = policy.token_logps()[0]
    ppo, count = ppo_loss(logps, logps.detach(), advantages, mask, clip_epsilon=clip_epsilon)
    reinforce, tokens = reinforce_loss(logps, advantages, mask)
    assert_close(gradient(ppo, policy), gradient(reinforce, policy), atol=1e-12, rtol=0)
    assert int(count) == int(tokens) == int(mask.sum())


def of_completions(world: EnumerableWorld) -> Tensor:
    """``[S, T]`` advantages, the same for a completion's tokens."""
    generator = torch.Generator().manual_seed(5)
    each = torch.randn(len(world.completions.mask), generator=generator, dtype=torch.float64)
    return each[:, None].expand_as(world.completions.mask)


def test_the_first_minibatch_of_gspo_is_grpo_and_of_cispo_the_mean_over_tokens() -> None:
    """At a ratio of 1 nothing is clipped, and a completion's ratio moves as its mean log-prob."""
    world, _, policy = setting(length=3)
    mask, advantages, logps = world.completions.mask, of_completions(world), policy.token_logps()[0]
    given = logps, logps.detach()
    gspo, count = gspo_loss(*given, advantages[:, 0], mask, clip_epsilon=3e-4)
    rest = given[1], advantages, mask
    grpo, completions = grpo_loss(*given, *rest, clip_epsilon=0.2, kl_coef=0.0)
    assert_close(gradient(gspo, policy), gradient(grpo, policy), atol=1e-12, rtol=0)
    assert int(count) == int(completions) == len(mask)
    cispo, count = cispo_loss(*given, advantages, mask, weight_cap=5.0)
    dapo, tokens = grpo_loss(*given, *rest, clip_epsilon=0.2, kl_coef=0.0, normaliser="tokens")
    assert_close(gradient(cispo, policy), gradient(dapo, policy), atol=1e-12, rtol=0)
    assert int(count) == int(tokens) == int(mask.sum())
    assert (gradient(grpo, policy) - gradient(dapo, policy)).abs().max() > 0.01


def test_on_stale_samples_each_has_its_own_weight() -> None:
    """Of a token (PPO, REINFORCE++, CISPO without a cap), of a completion (GSPO), none clipped."""
    world, old, policy = setting(length=3)
    mask, advantages = world.completions.mask, of_completions(world)
    given = policy.token_logps()[0], old.token_logps()[0].detach()
    no_end: dict[str, Any] = {"clip_epsilon": torch.inf}
    ppo = gradient(ppo_loss(*given, advantages, mask, **no_end)[0], policy)
    whitened = gradient(reinforce_pp_loss(*given, advantages, mask, **no_end)[0], policy)
    cispo = gradient(cispo_loss(*given, advantages, mask, weight_cap=torch.inf)[0], policy)
    for same in (whitened, cispo):
        assert_close(same, ppo, atol=1e-12, rtol=0)
    gspo = gradient(gspo_loss(*given, advantages[:, 0], mask, **no_end)[0], policy)
    by_hand = torch.zeros_like(policy.logits)
    for s, t in mask.nonzero().tolist():
        length = int(mask[s].sum())
        log_ratio = float((given[0] - given[1]).detach()[s, :length].sum()) / length
        weight = math.exp(log_ratio) * float(advantages[s, 0]) / length
        by_hand -= weight * gradient(given[0][s, t], policy)
    assert_close(gspo, by_hand, atol=1e-12, rtol=0)
    assert (gspo - ppo).abs().max() > 0.01
    capped = gradient(cispo_loss(*given, advantages, mask, weight_cap=1.1)[0], policy)
    assert (capped - ppo).abs().max() > 0.01


def objective_gradient(
    world: EnumerableWorld, reference: TabularPolicy, policy: TabularPolicy
) -> Tensor:
    """Of minus (expected reward - KL_COEF * KL), by differentiating the sum itself."""
    logps, ref = policy.sequence_logps(), reference.sequence_logps().detach()
    value = (logps.exp() * (world.rewards - KL_COEF * (logps - ref))).sum()
    return gradient(-value, policy)


def test_rewards_to_go_have_the_mean_gradient_of_whole_returns_and_less_variance() -> None:
    """A token cannot change what came before it: leaving that out only takes noise away."""
    world, reference, policy = setting(length=3)
    mask, logps = world.completions.mask, policy.token_logps()[0]
    chances = logps.detach().sum(1).exp()
    rewards = -KL_COEF * (logps - reference.token_logps()[0]).detach()
    rewards[torch.arange(len(rewards)), world.completions.lengths - 1] += world.rewards[0]
    to_go = rewards_to_go(rewards, mask, discount=1.0)
    whole = rewards.masked_fill(~mask, 0).sum(1, keepdim=True).expand_as(to_go)
    means, variances = [], []
    for returns in (to_go, whole):
        each = torch.stack(
            [
                gradient(reinforce_loss(logps[s], returns[s], mask[s])[0], policy).flatten()
                for s in range(len(logps))
            ]
        )
        mean = chances @ each
        means.append(mean)
        variances.append(float(chances @ (each - mean).square().sum(1)))
    print(f"variance of rewards-to-go {variances[0]:.3f}, of whole returns {variances[1]:.3f}")
    assert_close(means[0], means[1], atol=1e-12, rtol=0)
    exact = objective_gradient(world, reference, policy).flatten()
    assert_close(means[0], exact, atol=1e-12, rtol=0)
    assert variances[0] < 0.97 * variances[1]


def test_leave_one_out_over_all_pairs_of_draws_has_the_exact_gradient() -> None:
    """And the variance of rewards around 0, wherever they are: here around 3, printed."""
    world, reference, policy = setting(length=2)
    mask, token_logps = world.completions.mask, policy.token_logps()[0]
    logps = token_logps.detach().sum(1)
    rewards = 3 + world.rewards[0] - KL_COEF * (logps - world.ref_logps[0])
    pairs = torch.cartesian_prod(torch.arange(len(logps)), torch.arange(len(logps)))
    chances = logps[pairs].sum(1).exp()
    scores = torch.stack(
        [
            gradient(rloo_loss(token_logps[s, None], torch.ones(1), mask[s, None])[0], policy)
            for s in range(len(logps))
        ]
    ).flatten(1)
    means, variances = [], []
    group = torch.arange(len(pairs)).repeat_interleave(2)
    for advantages in (leave_one_out(rewards[pairs].flatten(), group), rewards[pairs].flatten()):
        each = (advantages.view(-1, 2, 1) * scores[pairs]).mean(1)
        means.append(chances @ each)
        variances.append(float(chances @ (each - means[-1]).square().sum(1)))
    print(f"variance with leave-one-out {variances[0]:.3f}, without baseline {variances[1]:.3f}")
    exact = objective_gradient(world, reference, policy).flatten()
    for mean in means:
        assert_close(mean, exact, atol=1e-12, rtol=0)
    assert variances[0] < variances[1] / 4
