"""Robust DPO by hand, and that its mean over flipped labels is DPO's loss."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.robust_dpo import RobustDPO, robust_dpo_loss
from tests.objectives.direct import column, random_logps


def test_value_worked_by_hand():
    """Margin 1: DPO costs 0.313262 as told and 1.313262 flipped; (0.75 x - 0.25 y) / 0.5."""
    losses, chosen, rejected = robust_dpo_loss(
        *column(-1, -4, -2, -3), beta=0.5, label_smoothing=0.25
    )
    assert losses.item() == pytest.approx(-0.186738, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
def test_the_mean_over_flips_is_the_loss_of_the_true_labels(rate):
    pc, pr, rc, rr = random_logps(0)
    told = robust_dpo_loss(pc, pr, rc, rr, beta=0.3, label_smoothing=rate).losses
    flipped = robust_dpo_loss(pr, pc, rr, rc, beta=0.3, label_smoothing=rate).losses
    assert_close((1 - rate) * told + rate * flipped, dpo_loss(pc, pr, rc, rr, beta=0.3).losses)


def test_gradient_at_the_reference():
    """There sigma is 1/2 on both sides: beta / 2 times (1 - e + e) / (1 - 2 e)."""
    chosen, rejected = random_logps(1, 2)
    policy = chosen.clone().requires_grad_()
    robust_dpo_loss(
        policy, rejected, chosen, rejected, beta=0.4, label_smoothing=0.25
    ).losses.sum().backward()
    assert_close(policy.grad, torch.full_like(chosen, -0.2 / 0.5))


def test_a_rate_of_one_half_is_refused(build):
    with pytest.raises(
        ConfigError, match=r"RobustDPO needs label_smoothing in \[0, 0\.5\), got 0\.5"
    ):
        RobustDPO(build("llama"), torch.optim.AdamW, label_smoothing=0.5)


@pytest.mark.parametrize("rate", [0.5, 0.7, -0.1, math.nan])
def test_a_rate_at_which_labels_say_nothing_is_refused(rate):
    four = [torch.zeros(2)] * 4
    with pytest.raises(ConfigError, match=r"label_smoothing must lie in \[0, 0.5\)"):
        robust_dpo_loss(*four, beta=0.1, label_smoothing=rate)
