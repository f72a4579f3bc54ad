"""Where GRPO's relatives end, and GRPO by where its KL penalty is: exact, by enumeration.

With the penalty in the reward of a completion, its advantage is 0 for every completion at the
optimum, so no weight that a completion or a token may have (1/length, a deviation, a clip) moves
the end. A penalty in the loss has another end, and its weights matter.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignlab.functional import kl_k1
from alignlab.objectives.cispo import cispo_loss
from alignlab.objectives.grpo import grpo_loss
from alignlab.objectives.gspo import gspo_loss
from alignlab.objectives.on_policy import OnPolicyObjective, Scored
from alignlab.objectives.reinforce_pp import REINFORCEPlusPlus, reinforce_pp_loss
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, divergence, random_world
from tests.conformance.test_policy_gradient_optimum import (
    KL_COEF,
    Loss,
    chances_of,
    mean_over_texts,
    off_by,
    policy,
    rows,
    settle,
    world,
)

__all__ = ["policy", "world"]  # fixtures
Flat = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # now, then, advantages, mask: a loss


def penalised(world: EnumerableWorld, ref: Tensor, flat: Flat) -> Loss:
    """``flat`` with a completion's penalised reward less its group's mean, in a large group."""

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        rewards = world.rewards - KL_COEF * kl_k1(now, ref).sum(-1)
        chances = chances_of(now)
        weighted = chances * (rewards - (chances * rewards).sum(1, keepdim=True))
        spread = weighted[..., None].expand_as(now).flatten(0, 1)
        return flat(token_logps.flatten(0, 1), now.flatten(0, 1), spread, rows(world))

    return loss


def grpo_by(normaliser: Any) -> Flat:
    def flat(now: Tensor, then: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        return grpo_loss(
            now, then, then, advantages, mask, clip_epsilon=0.2, kl_coef=0.0, normaliser=normaliser
        )[0]

    return flat


def gspo(now: Tensor, then: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return gspo_loss(now, then, advantages[:, 0], mask, clip_epsilon=3e-4)[0]


def cispo(now: Tensor, then: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    return cispo_loss(now, then, advantages, mask, weight_cap=5.0)[0]


@pytest.mark.parametrize(
    ("flat", "lr"),
    [
        (grpo_by(None), 1.5),
        (grpo_by("tokens"), 0.5),
        (grpo_by(3.0), 1.5),
        (gspo, 1.5),
        (cispo, 0.5),
    ],
    ids=["grpo", "dapo", "dr_grpo", "gspo", "cispo"],
)
def test_with_the_penalty_in_the_reward_the_end_is_the_optimum(
    flat: Flat, lr: float, world: EnumerableWorld, policy: TabularPolicy
) -> None:
    """Each completion's loss may be a mean over its tokens, or the sum."""
    loss = penalised(world, policy.token_logps().detach(), flat)
    logps = settle(policy, loss, steps=120, lr=lr)
    assert divergence(world.optimum(KL_COEF).logps, logps) < 1e-6
    assert divergence(world.optimum(1.2 * KL_COEF).logps, logps) > 1e-3


def penalty_in_the_loss(world: EnumerableWorld, ref: Tensor, weighted: bool) -> Loss:
    """Centred rewards and all tokens alike (Dr. GRPO), so that only the penalty is in question."""

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        chances = chances_of(now)
        centred = world.rewards - (chances * world.rewards).sum(1, keepdim=True)
        spread = (chances * centred)[..., None].expand_as(now).flatten(0, 1)
        return grpo_loss(
            token_logps.flatten(0, 1), now.flatten(0, 1), ref.flatten(0, 1), spread, rows(world),
            clip_epsilon=0.2, normaliser=1.0, weighted_kl=weighted,
            kl_coef=KL_COEF * chances[..., None].flatten(0, 1),
        )[0]  # fmt: skip

    return loss


@pytest.mark.parametrize(("weighted", "off"), [(False, 0.150), (True, 0.0528)])
def test_a_penalty_in_the_loss_ends_elsewhere_and_weighted_as_k2_does(
    weighted: bool, off: float, world: EnumerableWorld, policy: TabularPolicy
) -> None:
    """At rest a token's advantage of reward is what its penalty pulls, less the state's mean.

    k3 pulls by 1 - pi_ref / pi. Times the ratio it pulls by log(pi / pi_ref), as k2 does: the
    gradient of the token's own divergence, without what the token leads to.
    """
    texts, ref = world.completions, policy.token_logps().detach()
    logps = settle(policy, penalty_in_the_loss(world, ref, weighted), steps=300, lr=0.4)
    now = policy.token_logps().detach()
    ratio = mean_over_texts(texts, logps, now - ref)
    pull = ratio if weighted else 1 - (-ratio).exp()
    chance = policy.logits.detach().softmax(-1)
    pull = pull - (chance * pull).sum(-1, keepdim=True)
    advantage = mean_over_texts(texts, logps, world.advantages(now, kl_coef=0.0))
    assert (advantage - KL_COEF * pull).abs().max() < 1e-7
    what = f"k3 {'weighted by the ratio ' if weighted else ''}in the loss"
    assert off_by(world, logps, what) == pytest.approx(off, rel=0.01)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_completions_of_one_token_the_weighted_penalty_is_exact(weighted: bool) -> None:
    """There is nothing that a token leads to; without the weight it is still another end."""
    world, policy = random_world(0, vocabulary=6, length=1, prompts=2)
    loss = penalty_in_the_loss(world, policy.token_logps().detach(), weighted)
    logps = settle(policy, loss, steps=300, lr=0.4)
    far = divergence(world.optimum(KL_COEF).logps, logps)
    assert (far < 1e-6) if weighted else (far > 0.01)


def every_pair(world: EnumerableWorld, ref: Tensor) -> Loss:
    """REINFORCE++'s own advantages of all pairs of completions, each as often as it is drawn.

    The phase that is whitened has every pair once: another shift and another scale than that of
    drawn ones, which are both the same for all tokens, and so move no end.
    """
    texts, prompts = world.completions, len(world.rewards)
    s = len(texts.tokens)
    pairs = torch.cartesian_prod(torch.arange(s), torch.arange(s)).flatten()
    picked = (torch.arange(prompts)[:, None] * s + pairs).flatten()  # rows [P * S]
    mask = texts.mask.repeat(prompts, 1)[picked]
    trees: Any = SimpleNamespace(
        loss_mask=mask,
        completion_lengths=mask.sum(1),
        group=torch.arange(len(picked) // 2).repeat_interleave(2),
    )
    objective: Any = SimpleNamespace(kl_coef=KL_COEF, rollout_batch=lambda _, x: x)
    objective.token_rewards = lambda scored: OnPolicyObjective.token_rewards(objective, scored)

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach().flatten(0, 1)[picked]
        scored = Scored(trees, now, ref.flatten(0, 1)[picked], world.rewards.flatten()[picked])
        advantages: Any = REINFORCEPlusPlus.advantages(objective, scored)
        chances = now.sum(1).exp().view(-1, 2).prod(1).repeat_interleave(2)
        return reinforce_pp_loss(
            token_logps.flatten(0, 1)[picked], now, chances[:, None] * advantages, mask,
            clip_epsilon=0.2,
        )[0]  # fmt: skip

    return loss


def test_reinforce_pp_in_pairs_ends_at_the_optimum_of_twice_the_coefficient() -> None:
    """The mean of a pair holds half of the completion's own reward; of K it is a K-th."""
    world, policy = random_world(0, vocabulary=3, length=2, prompts=2)
    logps = settle(policy, every_pair(world, policy.token_logps().detach()), steps=200, lr=0.5)
    assert divergence(world.optimum(2 * KL_COEF).logps, logps) < 1e-6
    assert divergence(world.optimum(KL_COEF).logps, logps) > 0.01
