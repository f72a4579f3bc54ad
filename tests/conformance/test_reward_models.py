"""Reward models on orders drawn from a known reward end at that reward, up to a constant a prompt.

The world's completions are few, so the loss is its exact expectation over every order that the
reward can give, and the scores are free numbers: what is tested is the loss, not a network.
"""

from collections.abc import Callable
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.data.cycles import find_cycles
from alignlab.data.rows import PreferencePair
from alignlab.objectives.kwise_rm import kwise_rm_loss
from alignlab.objectives.plackett_luce import plackett_luce_loss
from alignlab.objectives.regression import regression_loss
from alignlab.objectives.rm import rm_loss
from alignlab.worlds.enumerable import random_world

OrderLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def world_rewards() -> Tensor:
    """``[2, 5]`` rewards of all completions of two prompts."""
    world, _ = random_world(0, vocabulary=2, length=4, prompts=2)
    return world.rewards


def minimise(scores: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The scores at the least loss."""
    scores = scores.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scores],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(scores)
        loss.backward()
        return loss

    optimizer.step(closure)
    return scores.detach()


def start(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(-1, keepdim=True)


def every_order(rewards: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All orders of all sets of K completions of one prompt, and how likely the reward gives each.

    Returns:
        ``[N, K]`` completions, best first, and ``[N]`` weights: sets are drawn evenly, the order of
        one by the urn of Plackett and Luce: the next is drawn among the rest by exp(reward).
    """
    orders, chances = [], []
    for chosen in combinations(range(len(rewards)), k):
        for order in permutations(chosen):
            chance, odds = 1.0, [float(rewards[i].exp()) for i in order]
            for place in range(k):
                chance *= odds[place] / sum(odds[place:])
            orders.append(order)
            chances.append(chance)
    weights = torch.tensor(chances, dtype=torch.float64)
    return torch.tensor(orders), weights / weights.sum()


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("loss", [kwise_rm_loss, plackett_luce_loss])
def test_rankings_recover_the_reward(loss: OrderLoss, k: int) -> None:
    rewards = world_rewards()
    assert float(centred(rewards).abs().max()) > 1  # there is something to find
    drawn = [every_order(row, k) for row in rewards]
    n = len(drawn[0][0])
    group, rank = torch.arange(n).repeat_interleave(k), torch.arange(k).repeat(n)

    def expected_loss(scores: Tensor) -> Tensor:
        parts = [
            weights @ loss(row[orders.flatten()], group, rank)
            for row, (orders, weights) in zip(scores, drawn, strict=True)
        ]
        return torch.stack(parts).sum()

    found = minimise(start(1, *rewards.shape), expected_loss)
    assert_close(centred(found), centred(rewards), atol=1e-6, rtol=0)


def test_pairs_recover_the_reward() -> None:
    rewards = world_rewards()
    chosen, rejected = torch.tensor(list(permutations(range(rewards.shape[1]), 2))).T
    weights = torch.sigmoid(rewards[:, chosen] - rewards[:, rejected])

    def expected_loss(scores: Tensor) -> Tensor:
        return (weights * rm_loss(scores[:, chosen], scores[:, rejected]).losses).sum()

    found = minimise(start(2, *rewards.shape), expected_loss)
    assert_close(centred(found), centred(rewards), atol=1e-6, rtol=0)


def test_centring_picks_one_of_the_equal_optima() -> None:
    """Weakly pulled, the scores are the reward with mean near 0, wherever they start."""
    rewards = world_rewards()
    chosen, rejected = torch.tensor(list(permutations(range(rewards.shape[1]), 2))).T
    weights = torch.sigmoid(rewards[:, chosen] - rewards[:, rejected])

    def expected_loss(scores: Tensor) -> Tensor:
        losses = rm_loss(scores[:, chosen], scores[:, rejected], centre_coef=1e-6).losses
        return (weights * losses).sum()

    found = minimise(start(2, *rewards.shape) + 5, expected_loss)
    assert_close(found, centred(rewards), atol=1e-3, rtol=0)


def test_ratings_with_noise_of_mean_zero_recover_the_reward_itself() -> None:
    rewards = world_rewards()
    noise = torch.tensor([-1.0, -0.25, 0.0, 0.5, 0.75], dtype=torch.float64)

    def expected_loss(scores: Tensor) -> Tensor:
        return regression_loss(scores[..., None], rewards[..., None] + noise).mean(-1).sum()

    assert_close(minimise(start(3, *rewards.shape), expected_loss), rewards, atol=1e-6, rtol=0)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_a_cycle_ends_at_equal_scores_and_a_loss_of_log_two(members: int) -> None:
    """a over b, b over c, c over a: Condorcet's paradox. The cycle is found and named too."""
    names = "abcde"[:members]
    rows = [
        PreferencePair(f"row {i}", "p", names[i], names[(i + 1) % members]) for i in range(members)
    ]
    chosen = torch.tensor([names.index(str(row.chosen)) for row in rows])
    rejected = torch.tensor([names.index(str(row.rejected)) for row in rows])

    def loss(scores: Tensor) -> Tensor:
        return rm_loss(scores[chosen], scores[rejected]).losses.mean()

    begin = start(4, members)
    assert float(loss(begin)) > 0.75
    found = minimise(begin, loss)
    assert_close(centred(found), torch.zeros(members, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(loss(found)) == pytest.approx(0.6931471805599453, abs=1e-12)
    (cycle,) = find_cycles(rows)
    assert set(cycle.rows) == {row.id for row in rows}
