"""Length-normalised DPO by hand and beside DPO."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.lndpo import lndpo_loss
from tests.objectives.direct import column, random_logps


def test_value_worked_by_hand():
    """Log-ratios 1 over 2 tokens and -1 over 4, beta 4: 2 + 1 = 3, and log(1 + e^-3) = 0.048587."""
    losses, chosen, rejected = lndpo_loss(*column(-1, -4, -2, -3, 2, 4), beta=4.0)
    assert losses.item() == pytest.approx(0.048587, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (2.0, -1.0)


def test_of_equal_lengths_it_is_dpo_with_beta_per_token():
    pc, pr, rc, rr = random_logps(0)
    lengths = torch.full((5,), 8)
    loss = lndpo_loss(pc, pr, rc, rr, lengths, lengths, beta=2.0)
    for ours, dpos in zip(loss, dpo_loss(pc, pr, rc, rr, beta=0.25), strict=True):
        assert_close(ours, dpos)


def test_saying_a_completion_twice_earns_nothing():
    pc, pr, rc, rr = random_logps(1)
    short, long = torch.full((5,), 3), torch.full((5,), 6)
    once = lndpo_loss(pc, pr, rc, rr, short, short, beta=2.0)
    twice = lndpo_loss(2 * pc, pr, 2 * rc, rr, long, short, beta=2.0)
    assert_close(twice.losses, once.losses)


def test_gradient_at_the_reference_is_shared_among_tokens():
    """beta / 2 over the completion's own length."""
    chosen, rejected = random_logps(2, 2)
    policy, other = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    lengths = torch.tensor([1, 2, 4, 5, 10]), torch.full((5,), 2)
    lndpo_loss(policy, other, chosen, rejected, *lengths, beta=3.0).losses.sum().backward()
    assert_close(policy.grad, torch.tensor([-1.5, -0.75, -0.375, -0.3, -0.15]).double())
    assert_close(other.grad, torch.full_like(chosen, 0.75))
