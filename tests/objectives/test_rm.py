"""Pairwise reward-model loss by hand, and what the module makes of a pair's margin."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.objectives.rm import RewardModel, rm_loss
from tests.objectives.scorers import fixed

ADAM = partial(torch.optim.AdamW, lr=1e-2)


def test_value_worked_by_hand():
    """sigmoid(2 - 1) = 0.731059, so the loss is 0.313262; equal scores cost log 2."""
    losses, chosen, rejected = rm_loss(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0]))
    assert_close(losses, torch.tensor([0.313262, 0.693147]), atol=1e-6, rtol=0)
    assert (chosen.tolist(), rejected.tolist()) == ([2.0, 3.0], [1.0, 3.0])


@pytest.mark.parametrize("margin", [0.5, torch.tensor([0.5])])
def test_a_margin_must_be_exceeded(margin):
    losses = rm_loss(torch.tensor([1.0]), torch.tensor([0.5]), margin=margin).losses
    assert float(losses) == pytest.approx(math.log(2), abs=1e-6)


def test_a_common_offset_changes_nothing():
    a, b = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.5])
    assert_close(rm_loss(a + 7, b + 7).losses, rm_loss(a, b).losses)


def test_centring_costs_the_squared_sum_of_scores():
    """Scores 2 and 1: 0.313262 + 0.01 * 3^2; 1 and -1 sum to 0 and cost nothing more."""
    chosen, rejected = torch.tensor([2.0, 1.0]), torch.tensor([1.0, -1.0])
    losses = rm_loss(chosen, rejected, centre_coef=0.01).losses
    assert_close(losses, torch.tensor([0.403262, 0.126928]), atol=1e-6, rtol=0)


def test_centring_pulls_the_sum_to_zero_and_leaves_the_difference():
    """Its gradient is 2 * 0.25 * (chosen + rejected) on both; Bradley-Terry's sums to 0."""
    scores = torch.tensor([3.0, -1.0], dtype=torch.float64, requires_grad=True)
    rm_loss(scores[:1], scores[1:], centre_coef=0.25).losses.sum().backward()
    wrong = 1 / (1 + math.exp(4))  # that the chosen one loses
    assert_close(scores.grad, torch.tensor([1 - wrong, 1 + wrong], dtype=torch.float64))


def test_rewards_carry_no_gradient():
    scores = torch.tensor([1.0, 0.0], requires_grad=True)
    _, chosen, rejected = rm_loss(scores[:1], scores[1:])
    assert not chosen.requires_grad
    assert not rejected.requires_grad


# ---------------------------------------------------------------- the module


def pairs(*margins: float | None) -> list[PromptTree]:
    return [
        PromptTree(i, f"p{i}", (1,), ((3, 2), (4, 2)), labels=None if m is None else (m, 0.0))
        for i, m in enumerate(margins)
    ]


def test_a_pairs_margin_reaches_its_own_loss():
    """Differences 1 and 1 with margins 1 and 0: log 2 and 0.313262."""
    module = RewardModel(fixed([1.0, 0.0, 3.0, 2.0]), ADAM)
    losses, means = module.losses(collate(pairs(1.0, 0.0)))
    assert_close(losses, torch.tensor([0.693147, 0.313262]), atol=1e-6, rtol=0)
    assert float(means["margin"]) == 1.0  # what is logged is the scores' own
    module.margin_scale = 0.5  # in the data's unit, margins are twice as large: 0.5 is left of 1
    halved, _ = module.losses(collate(pairs(1.0, 0.0)))
    assert_close(halved, torch.tensor([0.474077, 0.313262]), atol=1e-6, rtol=0)
    plain, _ = module.losses(collate(pairs(None, None)))
    assert_close(plain, torch.tensor([0.313262, 0.313262]), atol=1e-6, rtol=0)


def test_centring_is_handed_down():
    module = RewardModel(fixed([2.0, 1.0]), ADAM, centre_coef=0.01)
    losses, _ = module.losses(collate(pairs(None)))
    assert losses.item() == pytest.approx(0.403262, abs=1e-6)


def test_identical_scores_are_half_right():
    """Three pairs: right, tied, wrong."""
    module = RewardModel(fixed([1.0, 0.0, 2.0, 2.0, -1.0, 0.0]), ADAM)
    _, means = module.losses(collate(pairs(None, None, None)))
    assert float(means["accuracy"]) == 0.5
    tied = RewardModel(fixed([2.0, 2.0]), ADAM)
    assert float(tied.losses(collate(pairs(None)))[1]["accuracy"]) == 0.5


def test_one_completion_is_no_pair():
    module = RewardModel(fixed([1.0]), ADAM)
    with pytest.raises(DataError, match="two completions per prompt"):
        module.losses(collate([PromptTree(0, "a", (1,), ((3, 2),))]))


@pytest.mark.parametrize("name", ["centre_coef", "margin_scale"])
def test_a_negative_setting_names_its_key(name):
    settings: dict[str, Any] = {name: -1}
    with pytest.raises(ConfigError, match=rf"got -1\. Set model\.init_args\.{name}"):
        RewardModel(fixed([]), ADAM, **settings)
