"""DPOP by hand: where lambda is, what it costs, and the kink where training starts."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.dpop import DPOP, dpop_loss
from tests.objectives.direct import column


def test_value_worked_by_hand():
    """Log-ratios -1 and -2, so 1; less 3 times 1 it is -2, times 0.5 is -1: log(1 + e) = 1.313262.

    With lambda outside of beta it would be 0.5 - 3, and log(1 + e^2.5) = 2.578890.
    """
    losses, chosen, rejected = dpop_loss(*column(-3, -5, -2, -3), beta=0.5, lam=3.0)
    assert losses.item() == pytest.approx(1.313262, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (-0.5, -1.0)


def test_a_chosen_completion_that_gained_costs_nothing_more():
    logps = column(-1, -4, -2, -3)
    assert_close(dpop_loss(*logps, beta=0.5, lam=50.0), dpo_loss(*logps, beta=0.5))


@pytest.mark.parametrize(
    ("chosen", "slopes"),
    [
        (-2.0, (-0.25, 0.25)),  # on the kink, where training starts: as DPO, beta / 2
        (-3.0, (-1.635149, 0.408787)),  # margin -1.5, sigmoid(1.5) = 0.817574; 1 + 3 times for w
    ],
)
def test_slopes_by_hand(chosen, slopes):
    """beta 0.5 and lambda 3; log-ratios 0 or -1 of the chosen, and as much of the rejected."""
    pc, pr, rc, rr = column(chosen, chosen - 1, -2, -3)
    pc.requires_grad_(), pr.requires_grad_()
    dpop_loss(pc, pr, rc, rr, beta=0.5, lam=3.0).losses.sum().backward()
    assert pc.grad.item() == pytest.approx(slopes[0], abs=1e-6)
    assert pr.grad.item() == pytest.approx(slopes[1], abs=1e-6)


def test_extreme_log_ratios_are_finite():
    far = torch.tensor([200.0, -200.0, 200.0, -200.0]).requires_grad_()
    other, zero = torch.tensor([200.0, -200.0, -200.0, 200.0]), torch.zeros(4)
    losses = dpop_loss(far, other, zero, zero, beta=1.0, lam=50.0).losses
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.693147, 10_000.0, 0.0, 10_400.0])
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_a_negative_lambda_names_its_key(build):
    with pytest.raises(ConfigError, match=r"DPOP needs lam >= 0.*model\.init_args\.lam"):
        DPOP(build("llama"), torch.optim.AdamW, lam=-1.0)
