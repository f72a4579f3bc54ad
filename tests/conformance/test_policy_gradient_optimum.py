"""Where each policy-gradient objective ends: at the optimum of reward minus KL, or not and where.

Every expectation is a sum over all completions. A step is the exact gradient of an objective's own
loss, each logit's divided by how often its token is taken: a positive factor, so that where steps
end is where the gradient is 0, and few of them suffice.
"""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.data.rows import Demonstration, Prompt
from alignlab.data.sources import read_rows
from alignlab.functional import kl_k1, rewards_to_go
from alignlab.objectives.awr import awr_loss
from alignlab.objectives.grpo import grpo_loss
from alignlab.objectives.ppo import KL_ESTIMATORS, ppo_loss
from alignlab.objectives.reinforce import reinforce_loss
from alignlab.objectives.rloo import rloo_loss
from alignlab.objectives.sft import sft_loss
from alignlab.stages import best, completed
from alignlab.worlds.enumerable import (
    EOS,
    Completions,
    EnumerableWorld,
    TabularPolicy,
    divergence,
    random_world,
)
from tests.conformance.preferences import minimise

KL_COEF = 0.5
PROMPTS = 2
Loss = Callable[[Tensor], Tensor]  # token log-probs [P, S, T] -> expected loss, up to constants


@pytest.fixture
def world() -> EnumerableWorld:
    return random_world(0, vocabulary=4, length=3, prompts=PROMPTS)[0]


@pytest.fixture
def policy() -> TabularPolicy:
    return random_world(0, vocabulary=4, length=3, prompts=PROMPTS)[1]


def chances_of(token_logps: Tensor) -> Tensor:
    """``[P, S]`` probabilities of the completions, without gradient."""
    return token_logps.detach().sum(-1).exp()


def per_choice(texts: Completions, x: Tensor) -> Tensor:
    """``[P, open_prefixes, V]`` sums of ``x`` ``[P, S, T]`` over the cells where a token is taken.

    A choice is a token in a state (the text so far); a policy's logits have this shape.
    """
    s, t = texts.mask.nonzero().unbind(1)
    choices = texts.prefix[s, t] * texts.vocabulary + texts.tokens[s, t]
    flat = x.new_zeros(len(x), texts.open_prefixes * texts.vocabulary)
    return flat.index_add(1, choices, x[:, s, t]).view(len(x), -1, texts.vocabulary)


def taken(texts: Completions, logps: Tensor) -> Tensor:
    """``[P, open_prefixes, V]``: how often each choice is made."""
    return per_choice(texts, logps.exp()[..., None].expand(-1, -1, texts.mask.shape[1]))


def mean_over_texts(texts: Completions, logps: Tensor, x: Tensor) -> Tensor:
    """Mean of ``x`` ``[P, S, T]`` over the completions that make a choice, there."""
    return per_choice(texts, logps.exp()[..., None] * x) / taken(texts, logps)


def policy_of(texts: Completions, logps: Tensor) -> TabularPolicy:
    """The tabular policy with these log-probs ``[P, S]`` of completions."""
    return TabularPolicy(texts, taken(texts, logps).log())


def settle(policy: TabularPolicy, loss: Loss, steps: int = 100, lr: float = 0.5) -> Tensor:
    """Follow ``loss`` to where it ends; returns ``[P, S]`` log-probs, at rest to 1e-8."""
    for _ in range(steps):
        token_logps = policy.token_logps()
        (gradient,) = torch.autograd.grad(loss(token_logps), policy.logits)
        step = gradient / taken(policy.completions, token_logps.detach().sum(-1))
        policy.logits.data -= lr * step
    assert step.abs().max() < 1e-8
    return policy.sequence_logps().detach()


def rows(world: EnumerableWorld) -> Tensor:
    """``[P * S, T]`` mask: every prompt's completions are the rows of a loss."""
    return world.completions.mask.repeat(PROMPTS, 1)


def reinforce(world: EnumerableWorld, ref: Tensor) -> Loss:
    """Rewards-to-go with the penalty (k1) of every token, and a baseline."""
    last = (world.completions.lengths - 1)[None, :, None].expand(PROMPTS, -1, 1)
    on_last = torch.zeros_like(ref).scatter(2, last, world.rewards[..., None])

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        rewards = (on_last - KL_COEF * kl_k1(now, ref)).flatten(0, 1)
        returns = rewards_to_go(rewards, rows(world), discount=1.0)
        weighted = chances_of(now).flatten()[:, None] * (returns - returns.mean())
        return reinforce_loss(token_logps.flatten(0, 1), weighted, rows(world))[0]

    return loss


def rloo(world: EnumerableWorld, ref: Tensor) -> Loss:
    """A whole completion's penalised reward; the others of its group have the mean reward."""

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        rewards = world.rewards - KL_COEF * kl_k1(now, ref).sum(-1)
        advantages = rewards - (chances_of(now) * rewards).sum(1, keepdim=True)
        weighted = (chances_of(now) * advantages).flatten()
        return rloo_loss(token_logps.flatten(0, 1), weighted, rows(world))[0]

    return loss


def ppo(world: EnumerableWorld, ref: Tensor) -> Loss:
    """Exact advantages with the penalty in the reward; at the first update ratios are 1."""

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        weighted = chances_of(now)[..., None] * world.advantages(now, KL_COEF)
        return ppo_loss(
            token_logps.flatten(0, 1), now.flatten(0, 1), weighted.flatten(0, 1), rows(world),
            clip_epsilon=0.2,
        )[0]  # fmt: skip

    return loss


@pytest.mark.parametrize("objective", [reinforce, rloo, ppo])
def test_with_k1_in_the_reward_the_end_is_the_optimum(
    objective: Callable[[EnumerableWorld, Tensor], Loss],
    world: EnumerableWorld,
    policy: TabularPolicy,
) -> None:
    best = world.optimum(KL_COEF)
    assert divergence(best.logps, world.ref_logps) > 0.5  # it has some way to go
    logps = settle(policy, objective(world, policy.token_logps().detach()))
    assert divergence(best.logps, logps) < 1e-6
    # The optimum of another coefficient is another policy: dropping it would show.
    assert divergence(world.optimum(1.2 * KL_COEF).logps, logps) > 1e-3


def fit_awr(policy: TabularPolicy, loss: Loss) -> Tensor:
    """Fixed samples of the reference make AWR an ordinary (convex) regression."""
    optimizer = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=300,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss(policy.token_logps())
        value.backward()
        return value.item()

    optimizer.step(closure)
    return policy.sequence_logps().detach()


def awr(world: EnumerableWorld, chances: Tensor, advantages: Tensor, cap: float = 1e9) -> Loss:
    """Rows ``[P, S]`` with chances and advantages ``[P, S, T]``; linear in the log-probs."""

    def loss(token_logps: Tensor) -> Tensor:
        weighted = (chances[..., None] * token_logps).flatten(0, 1)
        return awr_loss(
            weighted, advantages.flatten(0, 1), rows(world), beta=KL_COEF, weight_cap=cap
        )[0]

    return loss


def test_sequence_level_awr_on_samples_of_the_reference_ends_at_the_optimum(
    world: EnumerableWorld, policy: TabularPolicy
) -> None:
    """Advantage R - V(x); the same with one other completion of the prompt in V's place."""
    chances, best = world.ref_logps.exp(), world.optimum(KL_COEF)
    value = (chances * world.rewards).sum(1, keepdim=True)
    shape = policy.token_logps().shape
    advantages = (world.rewards - value)[..., None].expand(shape)
    assert (advantages / KL_COEF).exp().max() < 1e9  # the cap does not bind
    start = policy.logits.detach().clone()
    logps = fit_awr(policy, awr(world, chances, advantages))
    assert divergence(best.logps, logps) < 1e-6

    # Leave-one-out with two completions: the other's reward, drawn on its own.
    per_pair = ((world.rewards[:, :, None] - world.rewards[:, None, :]) / KL_COEF).exp()
    mean_weight = (per_pair * chances[:, None, :]).sum(-1)
    sampled = (KL_COEF * mean_weight.log())[..., None].expand(shape)
    again = TabularPolicy(world.completions, start)
    assert divergence(best.logps, fit_awr(again, awr(world, chances, sampled))) < 1e-6

    capped = TabularPolicy(world.completions, start)
    far = fit_awr(capped, awr(world, chances, advantages, cap=2.0))
    assert divergence(best.logps, far) > 0.05


def test_awr_phase_after_phase_rests_where_kl_coef_says(world: EnumerableWorld) -> None:
    """On the optimum's own samples no weight is larger than another, whatever ``beta``."""
    for kl_coef, rests in ((KL_COEF, True), (0.8 * KL_COEF, False)):
        policy = policy_of(world.completions, world.optimum(KL_COEF).logps)
        logps = policy.sequence_logps().detach()
        rewards = world.rewards - kl_coef * (logps - world.ref_logps)
        value = (logps.exp() * rewards).sum(1, keepdim=True)
        advantages = (rewards - value)[..., None].expand(policy.token_logps().shape)
        loss = awr(world, logps.exp(), advantages)(policy.token_logps())
        (gradient,) = torch.autograd.grad(loss, policy.logits)
        assert (gradient.abs().max() < 1e-10) == rests


def off_by(world: EnumerableWorld, logps: Tensor, what: str) -> float:
    """KL(pi* || pi), printed."""
    off = divergence(world.optimum(KL_COEF).logps, logps)
    print(f"{what}: KL(pi* || pi) = {off:.2e}")
    return off


def test_token_level_awr_ends_elsewhere(world: EnumerableWorld, policy: TabularPolicy) -> None:
    """Each token is tilted by its own advantage under the reference, exp(A / beta) (its own rest).

    So what the reference would do next counts, not what the tilted policy does.
    """
    texts, start = world.completions, policy.logits.detach().clone()
    advantages = world.advantages(policy.token_logps(), kl_coef=0.0)
    logps = fit_awr(policy, awr(world, world.ref_logps.exp(), advantages))
    tilt = mean_over_texts(texts, world.ref_logps, advantages) / KL_COEF
    expected = TabularPolicy(texts, start + tilt).sequence_logps().detach()
    assert divergence(expected, logps) < 1e-9
    assert off_by(world, logps, "token-level AWR") == pytest.approx(0.210, rel=0.01)


def ppo_with_kl_in_the_loss(world: EnumerableWorld, ref: Tensor, estimator: str) -> Loss:
    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        chances = chances_of(now)[..., None]
        weighted = (chances * world.advantages(now, kl_coef=0.0)).flatten(0, 1)
        flat = token_logps.flatten(0, 1)
        surrogate, _ = ppo_loss(flat, now.flatten(0, 1), weighted, rows(world), clip_epsilon=0.2)
        return surrogate + KL_COEF * (chances * KL_ESTIMATORS[estimator](token_logps, ref)).sum()

    return loss


@pytest.mark.parametrize(("estimator", "off"), [("k2", 0.0528), ("k3", 0.150)])
def test_a_penalty_per_token_in_the_loss_ends_elsewhere(
    estimator: str, off: float, world: EnumerableWorld, policy: TabularPolicy
) -> None:
    """At rest a token's advantage of reward is what its own penalty pulls, in every state.

    k2 pulls by log(pi / pi_ref), k3 by 1 - pi_ref / pi, less the state's mean; neither knows of
    the divergence that a token leads to later.
    """
    texts, ref = world.completions, policy.token_logps().detach()
    logps = settle(policy, ppo_with_kl_in_the_loss(world, ref, estimator), steps=600, lr=0.2)
    now = policy.token_logps().detach()
    ratio = mean_over_texts(texts, logps, now - ref)  # [P, states, V]
    pull = {"k2": ratio, "k3": 1 - (-ratio).exp()}[estimator]
    chance = policy.logits.detach().softmax(-1)
    pull = pull - (chance * pull).sum(-1, keepdim=True)  # for k3 that mean is 0
    advantage = mean_over_texts(texts, logps, world.advantages(now, kl_coef=0.0))
    assert (advantage - KL_COEF * pull).abs().max() < 1e-7
    assert off_by(world, logps, f"{estimator} per token in the loss") == pytest.approx(
        off, rel=0.01
    )


def grpo(world: EnumerableWorld, ref: Tensor) -> Loss:
    """As published, with a group so large that its mean and deviation are the policy's."""

    def loss(token_logps: Tensor) -> Tensor:
        now = token_logps.detach()
        chances = chances_of(now)[..., None]  # the loss is linear in advantages and coefficient
        return grpo_loss(
            token_logps.flatten(0, 1),
            now.flatten(0, 1),
            ref.flatten(0, 1),
            (chances * standardised(world, now)).flatten(0, 1),
            rows(world),
            clip_epsilon=0.2,
            kl_coef=KL_COEF * chances.flatten(0, 1),
        )[0]

    return loss


def standardised(world: EnumerableWorld, token_logps: Tensor) -> Tensor:
    """Rewards in standard deviations from their mean under the policy, ``[P, S, T]``."""
    chances = chances_of(token_logps)
    centred = world.rewards - (chances * world.rewards).sum(1, keepdim=True)
    deviation = (chances * centred.square()).sum(1, keepdim=True).sqrt()
    return (centred / deviation)[..., None].expand(token_logps.shape)


def test_grpo_as_published_ends_elsewhere(world: EnumerableWorld, policy: TabularPolicy) -> None:
    """At rest (standardised reward - the penalty's pull) / length is equal for a state's tokens.

    Equal in the mean over the completions that go on from there.
    """
    texts, ref = world.completions, policy.token_logps().detach()
    logps = settle(policy, grpo(world, ref), steps=900)
    now = policy.token_logps().detach()
    pull = KL_COEF * (1 - (ref - now).exp())
    per_token = (standardised(world, now) - pull) / texts.lengths[:, None]
    mean = mean_over_texts(texts, logps, per_token)
    chance = policy.logits.detach().softmax(-1)
    assert (mean - (chance * mean).sum(-1, keepdim=True)).abs().max() < 1e-7
    assert off_by(world, logps, "GRPO as published") == pytest.approx(0.301, rel=0.01)


class EveryDraw:
    """Stands where a policy is sampled: each prompt's draws are all n-tuples of completions.

    Args:
        world: Whose completions.
        n: Draws of which the best is kept.
        texts: The completions, written out.
    """

    refused = 0

    def __init__(self, world: EnumerableWorld, n: int, texts: list[str]) -> None:
        self.world, self.texts = world, texts
        everything = torch.arange(len(texts))
        self.tuples = torch.cartesian_prod(*[everything] * n).view(-1, n)

    def draw(self, samples: int, *settings: Any) -> Iterator[tuple[Prompt, int, Any]]:
        drawn = self.tuples.flatten()
        assert samples == len(drawn)
        ends = [row[length - 1] == EOS for row, length in tokens_of(self.world.completions)]
        for tree, rewards in zip(self.world.trees(), self.world.rewards, strict=True):
            own = completed.Completions(
                [self.texts[s] for s in drawn], [ends[s] for s in drawn], rewards[drawn]
            )
            settings[-1].count(own, tree)
            yield Prompt(str(tree.index), f"prompt {tree.index}"), tree.index, own


def tokens_of(texts: Completions) -> list[tuple[list[int], int]]:
    return list(zip(texts.tokens.tolist(), texts.lengths.tolist(), strict=True))


def distil(
    world: EnumerableWorld, n: int, texts: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """``[P, S]``: how often each completion is demonstrated if every tuple is drawn as it would be.

    What is kept of a tuple is for the stage to say; a tuple's chance is a product of the draws'.
    """
    every = EveryDraw(world, n, texts)
    monkeypatch.setattr(best, "Completed", lambda *_: every)
    best.make_demonstrations(
        out=out, policy="", prompts="", reward={}, max_new_tokens=world.completions.mask.shape[1],
        n=n, per_prompt=len(every.tuples),
    )  # fmt: skip
    rows, _ = read_rows(str(out / "demonstrations.jsonl"), Demonstration)
    often = torch.zeros_like(world.rewards)
    for row in rows:
        prompt, _, place = row.id.partition("#")
        drawn = every.tuples[int(place) // n]  # the tuple that it is the best of
        kept = texts.index(str(row.completion))
        assert kept in drawn
        tokens, length = tokens_of(world.completions)[kept]
        assert row.ends == (tokens[length - 1] == EOS)
        often[int(prompt), kept] += world.ref_logps[int(prompt), drawn].exp().prod()
    return often


def small_world_with_ties() -> tuple[EnumerableWorld, TabularPolicy]:
    """15 completions of two prompts; in no prompt are the rewards all different."""
    world, policy = random_world(0, vocabulary=3, length=3, prompts=PROMPTS, ties=True)
    assert all(len(row.unique()) < 0.6 * len(row) for row in world.rewards)
    return world, policy


@pytest.mark.parametrize("n", [1, 2, 3])
def test_imitating_the_best_of_n_ends_at_the_best_of_n_distribution(
    n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT on what the stage keeps of all n-tuples of draws, against the closed form.

    Another n is another distribution, and at 1 it is the reference's own.
    """
    world, policy = small_world_with_ties()
    texts = [f"text {s}" for s in range(len(world.completions.tokens))]
    often = distil(world, n, texts, tmp_path, monkeypatch)
    expected = world.best_of_n(n)
    assert_close(often, expected.exp(), atol=1e-12, rtol=0)

    def loss_of() -> Tensor:
        weighted = (often[..., None] * policy.token_logps()).flatten(0, 1)
        return sft_loss(weighted, rows(world))[0]

    minimise(policy.parameters(), loss_of)
    logps = policy.sequence_logps().detach()
    assert divergence(expected, logps) < 1e-6
    assert divergence(world.best_of_n(n + 1), logps) > 0.01
    if n == 1:
        assert divergence(world.ref_logps, logps) < 1e-6


def test_a_best_completion_that_is_empty_teaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that ends at once is no demonstration: the others keep their best-of-n chances."""
    world, _ = small_world_with_ties()
    assert tokens_of(world.completions)[0] == ([EOS, EOS, EOS], 1)
    texts = ["", *(f"text {s}" for s in range(1, len(world.completions.tokens)))]
    often = distil(world, 2, texts, tmp_path, monkeypatch)
    expected = world.best_of_n(2).exp()
    assert (expected[:, 0] > 0.01).all()
    expected[:, 0] = 0
    assert_close(often, expected, atol=1e-12, rtol=0)
    draws = product(range(len(texts)), repeat=2)
    bests = [max(draw, key=lambda s: row[s]) for draw in draws for row in world.rewards.tolist()]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["dropped"] == {"an empty completion": bests.count(0)}
    assert summary["demonstrations"] == len(bests) - bests.count(0)
