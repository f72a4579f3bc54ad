"""DDO-RM by hand: target and policy over a prompt's candidates, and their cross-entropy."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.ddo_rm import ddo_rm_loss
from tests.objectives.direct import random_logps

PAIR = torch.tensor([0, 0])


def test_value_and_gradient_worked_by_hand() -> None:
    """Target 1/4 and 3/4, policy 3/4 and 1/4: the cross-entropy, and a slope of 1/2 either way."""
    rewards = torch.tensor([1.0, 1.0 + 0.5 * math.log(3)], dtype=torch.float64)
    logps = torch.tensor([-2 + math.log(3), -5], dtype=torch.float64).requires_grad_()
    ref = torch.tensor([-2.0, -5.0], dtype=torch.float64)
    losses = ddo_rm_loss(logps, ref, rewards, PAIR, beta=0.5)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.25 * math.log(4 / 3) + 0.75 * math.log(4)])
    assert_close(logps.grad, torch.tensor([0.5, -0.5], dtype=torch.float64))


def test_before_any_step_it_is_the_log_of_the_number_of_candidates() -> None:
    logps, rewards, *_ = random_logps(0)
    losses = ddo_rm_loss(logps, logps, rewards, torch.tensor([0, 0, 0, 1, 1]), beta=0.3)
    assert losses.tolist() == pytest.approx([math.log(3), math.log(2)])


def test_neither_the_zero_of_a_prompts_rewards_nor_its_normaliser_matters() -> None:
    logps, ref, rewards, _ = random_logps(1)
    group = torch.tensor([0, 0, 0, 1, 1])
    moved = torch.tensor([5.0, -7.0], dtype=torch.float64)[group]
    expected = ddo_rm_loss(logps, ref, rewards, group, beta=0.3)
    assert_close(ddo_rm_loss(logps, ref, rewards + moved, group, beta=0.3), expected)
    assert_close(ddo_rm_loss(logps + moved, ref, rewards, group, beta=0.3), expected)


def test_finite_for_extreme_log_ratios_and_a_small_beta() -> None:
    logps = torch.tensor([200.0, -200.0], requires_grad=True)
    rewards = torch.tensor([-1.0, 1.0])
    losses = ddo_rm_loss(logps, torch.zeros(2), rewards, PAIR, beta=1e-3)
    losses.sum().backward()
    assert losses.tolist() == [400.0]  # all of the target is on the one that the policy avoids
    assert logps.grad is not None
    assert logps.grad.tolist() == [1.0, -1.0]
