"""DiscoPOP by hand: both halves of the blend, and no overflow in their product."""

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.objectives.discopop import DiscoPOP, discopop_loss
from tests.objectives.direct import column


@pytest.mark.parametrize(("margin", "loss"), [(1.0, 0.361369), (-1.0, 1.480744), (0.0, 0.846574)])
def test_value_worked_by_hand(margin, loss):
    """tau 0.5, so m = sigmoid(2 x): 0.880797, 0.119203 and 1/2.

    0.119203 * 0.313262 + 0.880797 * 0.367879; 0.880797 * 1.313262 + 0.119203 * 2.718282; and
    (log 2 + 1) / 2.
    """
    x = column(2 * margin, 0, 0, 0)
    losses, chosen, rejected = discopop_loss(*x, beta=0.5, tau=0.5)
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (margin, 0.0)


@pytest.mark.parametrize(("tau", "slope"), [(0.5, -0.596574), (0.05, 0.784264)])
def test_slope_where_training_starts(tau, slope):
    """m' (1 - log 2) - 3/4, m' = 1 / (4 tau): below tau 0.1023 the loss rises with the margin."""
    chosen, *others = column(0, 0, 0, 0)
    discopop_loss(chosen.requires_grad_(), *others, beta=1.0, tau=tau).losses.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_extreme_log_ratios_are_finite(tau):
    """Where m vanishes, e^-x overflows; the product is 0, or 1 at tau 1."""
    far, zero = torch.tensor([200.0, -200.0]).requires_grad_(), torch.zeros(2)
    losses = discopop_loss(far, -far, zero, zero, beta=1.0, tau=tau).losses
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 400.0 + (tau == 1.0)])
    assert far.grad is not None
    assert far.grad.tolist() == pytest.approx([0.0, -2.0])


@pytest.mark.parametrize("tau", [0.0, 1.5])
def test_a_tau_that_could_overflow_is_refused(build, tau):
    with pytest.raises(ConfigError, match=r"DiscoPOP needs tau in \(0, 1\].*init_args\.tau"):
        DiscoPOP(build("llama"), torch.optim.AdamW, tau=tau)
