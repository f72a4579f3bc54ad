"""Plackett-Luce: an order by hand, two as Bradley-Terry, ties in any order."""

import math
from functools import partial
from itertools import permutations

import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.objectives.plackett_luce import PlackettLuce, plackett_luce_loss
from alignlab.objectives.rm import rm_loss
from tests.objectives.scorers import fixed

LOG2, LOG4 = math.log(2), math.log(4)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_three_worked_by_hand():
    """Odds 4 : 2 : 1 in this order: 4/7 * 2/3 = 8/21; with the first two swapped 2/7 * 4/5."""
    scores, one = f64(LOG4, LOG2, 0), torch.zeros(3).long()
    assert_close(plackett_luce_loss(scores, one, torch.tensor([0, 1, 2])), f64(math.log(21 / 8)))
    assert_close(plackett_luce_loss(scores, one, torch.tensor([1, 0, 2])), f64(math.log(35 / 8)))


def test_two_completions_are_bradley_terry():
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    scores = torch.stack([rejected, chosen], 1).flatten()
    rank = torch.tensor([1, 0] * 7)
    losses = plackett_luce_loss(scores, torch.arange(7).repeat_interleave(2), rank)
    assert_close(losses, rm_loss(chosen, rejected).losses, atol=1e-14, rtol=0)


def test_the_order_of_tied_completions_does_not_matter():
    scores, rank, one = f64(1, 0.5, -0.25, 2), torch.tensor([0, 1, 1, 2]), torch.zeros(4).long()
    expected = plackett_luce_loss(scores, one, rank)
    for order in map(list, permutations(range(4))):
        assert_close(plackett_luce_loss(scores[order], one, rank[order]), expected)


def test_module_sums_the_choices_of_each_prompt():
    trees = [
        PromptTree(0, "a", (1,), ((3,), (4,), (5,)), labels=(2, 1, 0)),
        PromptTree(1, "b", (1,), ((3,), (4,)), labels=(0, 1)),
    ]
    module = PlackettLuce(
        fixed([0.0, LOG2, LOG4, LOG2, 0.0], dtype=torch.float64),
        partial(torch.optim.AdamW, lr=1e-2),
    )
    losses, _ = module.losses(collate(trees))
    assert_close(losses, f64(math.log(21 / 8), math.log(3 / 2)))
