"""PPO with the KL penalty in the reward (k1) ends at the exact optimum of reward minus KL."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from alignlab.functional import clipped_value_loss, gae, inverse_cdf, kl_k1, uniform, whiten
from alignlab.objectives.ppo import ppo_loss
from alignlab.worlds.enumerable import (
    EnumerableWorld,
    TabularPolicy,
    divergence,
    random_world,
)

INNER = 2  # updates before the next rollout: the second one has ratios other than 1


def improve_exactly(
    parameters: Iterable[nn.Parameter],
    token_logps_of: Callable[[], Tensor],
    world: EnumerableWorld,
    kl_coef: float,
    steps: int,
    lr: float,
) -> Tensor:
    """PPO where every expectation is a sum: all completions, weighted by the policy's chances."""
    optimizer = torch.optim.Adam(parameters, lr, betas=(0.9, 0.95))
    schedule = LambdaLR(optimizer, lambda step: 1 - step / (steps * INNER))
    mask = world.completions.mask.repeat(len(world.rewards), 1)
    for _ in range(steps):
        with torch.no_grad():
            old = token_logps_of()
        chance = old.sum(-1, keepdim=True).exp()
        weighted = chance * world.advantages(old, kl_coef)  # the surrogate is linear in these
        for _ in range(INNER):
            optimizer.zero_grad()
            loss, _ = ppo_loss(
                token_logps_of().flatten(0, 1),
                old.flatten(0, 1),
                weighted.flatten(0, 1),
                mask,
                clip_epsilon=0.2,
            )
            loss.backward()
            optimizer.step()
            schedule.step()
    return token_logps_of().detach().sum(-1)


def test_exact_advantages_tabular() -> None:
    kl_coef = 0.5
    world, policy = random_world(0, vocabulary=4, length=3, prompts=2)
    best = world.optimum(kl_coef)
    assert divergence(best.logps, world.ref_logps) > 0.5
    logps = improve_exactly(
        policy.parameters(), policy.token_logps, world, kl_coef, steps=1000, lr=0.05
    )
    assert divergence(best.logps, logps) < 1e-6


def test_exact_advantages_transformer(tiny_world) -> None:
    kl_coef = 0.5
    policy, trees, world = tiny_world(vocabulary=3, length=3, prompts=2)
    best = world.optimum(kl_coef)
    assert divergence(best.logps, world.ref_logps) > 0.5
    shape = (2, *world.completions.tokens.shape)
    logps = improve_exactly(
        policy.parameters(),
        lambda: policy(trees).token_logps.view(shape),
        world,
        kl_coef,
        steps=150,
        lr=0.01,
    )
    assert divergence(best.logps, logps) < 0.01


def test_sampled_rollouts_reach_98_percent_of_the_optimums_gain_at_their_kl() -> None:
    """512 completions a phase, four epochs, GAE on a value table learned along the way."""
    kl_coef, phases, epochs, rows = 0.5, 150, 4, 512
    world, policy = random_world(0, vocabulary=4, length=3, prompts=2)
    completions = world.completions
    ref_token_logps = policy.token_logps().detach()
    states = completions.prefix[:, :-1].masked_fill(~completions.mask, 0)
    values = nn.Parameter(torch.zeros(2, completions.open_prefixes, dtype=torch.float64))
    optimizer = torch.optim.Adam(
        [{"params": policy.parameters(), "lr": 0.05}, {"params": [values], "lr": 0.1}]
    )
    schedule = LambdaLR(optimizer, lambda step: 1 - step / (phases * epochs))
    prompt, sample = torch.arange(rows) % 2, torch.arange(rows) // 2
    for phase in range(phases):
        with torch.no_grad():
            u = uniform(0, phase, prompt, sample, 0)
            text = inverse_cdf(policy.sequence_logps()[prompt], u)
            mask, where = completions.mask[text], (prompt[:, None], states[text])
            old, old_values = policy.token_logps()[prompt, text], values[where]
            rewards = -kl_coef * kl_k1(old, ref_token_logps[prompt, text])
            rewards[torch.arange(rows), completions.lengths[text] - 1] += world.rewards[
                prompt, text
            ]
            advantages, returns = gae(rewards, old_values, mask, discount=1.0, gae_lambda=0.95)
            advantages = whiten(advantages, mask)
        for _ in range(epochs):
            optimizer.zero_grad()
            loss, count = ppo_loss(
                policy.token_logps()[prompt, text], old, advantages, mask, clip_epsilon=0.2
            )
            value_loss = clipped_value_loss(
                values[where], old_values, returns, mask, value_clip_epsilon=0.5
            )
            ((loss + value_loss.sum()) / count).backward()
            optimizer.step()
            schedule.step()
    assert share_of_gain(world, policy, kl_coef) >= 0.98


@pytest.mark.parametrize(("gae_lambda", "sweeps"), [(1.0, 1), (0.95, 12), (0.0, 3)])
def test_a_warm_up_of_the_values_ends_at_what_the_reference_gets(gae_lambda, sweeps) -> None:
    """Exact least squares to the returns of all completions, again and again from values of 0.

    Its fixed point is the mean reward of the reference behind each prefix, whatever the lambda.
    With lambda 1 a single phase suffices; with less the values learn from one another.
    """
    world, _ = random_world(0, vocabulary=4, length=3, prompts=2)
    mask, prefix = world.completions.mask, world.completions.prefix[:, :-1]
    chances = world.ref_logps.exp()[0, :, None].expand_as(mask)[mask]
    where, last = prefix[mask], world.completions.lengths - 1
    rewards = torch.zeros(mask.shape, dtype=torch.float64)
    rewards[torch.arange(len(last)), last] = world.rewards[0]

    def mean_of(returns: Tensor) -> Tensor:
        sums = torch.zeros(2, world.completions.open_prefixes, dtype=torch.float64)
        sums[0].index_add_(0, where, chances * returns[mask])
        sums[1].index_add_(0, where, chances)
        return sums[0] / sums[1]

    exact = mean_of(world.rewards[0, :, None].expand_as(mask))
    values, gaps = torch.zeros_like(exact), []
    for _ in range(sweeps):
        held = values[prefix.masked_fill(~mask, 0)]
        _, returns = gae(rewards, held, mask, discount=1.0, gae_lambda=gae_lambda)
        values = mean_of(returns)
        gaps.append(float((values - exact).abs().max()))
    assert gaps[-1] < 1e-9
    assert gae_lambda == 1 or gaps[0] > 0.01


def share_of_gain(world: EnumerableWorld, policy: TabularPolicy, kl_coef: float) -> float:
    """The policy's gain over the reference as a share of the optimum's gain at the same KL."""
    logps = policy.sequence_logps().detach()
    kl, start = world.kl(logps), world.reward(world.ref_logps)
    assert abs(kl / world.optimum(kl_coef).kl - 1) < 0.1  # and it spent what kl_coef says
    best = world.optimum(world.beta_for_kl(kl)).reward
    share = (world.reward(logps) - start) / (best - start)
    print(f"KL {kl:.3f}, share of the optimum's gain {share:.5f}")
    return share
