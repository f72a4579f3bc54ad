import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch.testing import assert_close

from alignlab.functional import bradley_terry, kwise_ranking, plackett_luce

Ranking = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
LOG2, LOG3 = math.log(2), math.log(3)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_worked_by_hand() -> None:
    """Odds e^(a - b): log 3 ahead wins 3 times in 4; even costs log 2; far apart stays finite."""
    losses = bradley_terry(f64(LOG3, 0, 0, 800), f64(0, LOG3, 0, 0))
    assert_close(losses, f64(math.log(4 / 3), math.log(4), LOG2, 0))
    assert_close(bradley_terry(f64(0), f64(800)), f64(800))


def test_kwise_worked_by_hand() -> None:
    """Scores log 4, log 2, 0 ranked so: pairs win 2/3, 4/5, 2/3; the mean of three costs."""
    scores, rank = f64(math.log(4), LOG2, 0), torch.tensor([0, 1, 2])
    expected = (2 * math.log(3 / 2) + math.log(5 / 4)) / 3
    assert_close(kwise_ranking(scores, torch.zeros(3).long(), rank), f64(expected))


def test_plackett_luce_worked_by_hand() -> None:
    """Weights 4, 2, 1 in this order: 4/7 * 2/3 * 1 = 8/21; the reverse 1/7 * 2/6 = 1/21."""
    scores, one = f64(math.log(4), LOG2, 0), torch.zeros(3).long()
    assert_close(plackett_luce(scores, one, torch.tensor([0, 1, 2])), f64(math.log(21 / 8)))
    assert_close(plackett_luce(scores, one, torch.tensor([2, 1, 0])), f64(math.log(21)))


def test_plackett_luce_is_a_distribution_over_orders() -> None:
    scores = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orders = [torch.tensor(order) for order in permutations(range(4))]
    chances = torch.cat([plackett_luce(scores, torch.zeros(4).long(), o) for o in orders])
    assert_close((-chances).exp().sum().item(), 1.0)


@pytest.mark.parametrize("ranking", [kwise_ranking, plackett_luce])
def test_two_completions_are_bradley_terry(ranking: Ranking) -> None:
    g = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randn(2, 5, generator=g, dtype=torch.float64)
    scores = torch.stack([rejected, chosen], dim=1).flatten()
    losses = ranking(scores, torch.arange(5).repeat_interleave(2), torch.tensor([1, 0] * 5))
    assert_close(losses, bradley_terry(chosen, rejected), atol=1e-14, rtol=0)


def test_ties_are_never_compared() -> None:
    """Ranks 0, 0, 1: the two best each beat the last; nothing between them."""
    scores, one = f64(LOG3, 0, 0), torch.zeros(3).long()
    rank = torch.tensor([0, 0, 1])
    costs = math.log(4 / 3) + LOG2
    assert_close(kwise_ranking(scores, one, rank), f64(costs / 2))
    assert_close(plackett_luce(scores, one, rank), f64(costs))


@pytest.mark.parametrize("ranking", [kwise_ranking, plackett_luce])
def test_order_of_completions_does_not_matter(ranking: Ranking) -> None:
    g = torch.Generator().manual_seed(2)
    scores = torch.randn(6, generator=g, dtype=torch.float64)
    group, rank = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, 1, 2, 3, 3])
    expected = ranking(scores, group, rank)
    for seed in range(5):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        assert_close(ranking(scores[order], group[order], rank[order]), expected)


@pytest.mark.parametrize("ranking", [kwise_ranking, plackett_luce])
def test_a_group_of_ties_costs_nothing_and_has_a_gradient_of_zero(ranking: Ranking) -> None:
    scores = f64(1, 2, 3).requires_grad_()
    losses = ranking(scores, torch.tensor([4, 4, 9]), torch.tensor([0, 0, 0]))
    losses.sum().backward()
    assert_close(losses.detach(), f64(0, 0))
    assert_close(scores.grad, f64(0, 0, 0))


@pytest.mark.parametrize("ranking", [kwise_ranking, plackett_luce])
def test_one_loss_per_group_in_group_order(ranking: Ranking) -> None:
    scores, rank = f64(LOG3, 0, 0, LOG3), torch.tensor([0, 1, 0, 1])
    losses = ranking(scores, torch.tensor([8, 8, 3, 3]), rank)
    assert_close(losses, f64(math.log(4), math.log(4 / 3)))


def test_gradient_is_the_chance_of_being_wrong() -> None:
    scores = f64(LOG3, 0).requires_grad_()
    kwise_ranking(scores, torch.zeros(2).long(), torch.tensor([0, 1])).sum().backward()
    assert_close(scores.grad, f64(-0.25, 0.25))
