"""APO-zero and APO-down by hand, and the directions in which they pull."""

import pytest
import torch

from alignlab.objectives.apo import apo_loss
from tests.objectives.direct import column


@pytest.mark.parametrize(
    ("raise_chosen", "loss", "slopes"),
    [
        (True, 0.755081, (-0.117502, 0.117502)),  # 2 sigma(-0.5)
        (False, 0.891401, (0.019196, 0.098306)),  # sigma(0.5) + sigma(-1)
    ],
)
def test_value_and_slopes_worked_by_hand(raise_chosen, loss, slopes):
    """s = 0.5 and -0.5; sigma'(0.5) = 0.235004 and sigma'(1) = 0.196612, times beta."""
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    losses, chosen, rejected = apo_loss(pc, pr, rc, rr, beta=0.5, raise_chosen=raise_chosen)
    losses.backward()
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert pc.grad is not None
    assert pr.grad is not None
    assert (pc.grad.item(), pr.grad.item()) == pytest.approx(slopes, abs=1e-6)


def test_far_from_the_reference_a_completion_teaches_nothing():
    far = torch.tensor([60.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    apo_loss(far, zero, zero, zero, beta=1.0, raise_chosen=True).losses.backward()
    assert far.grad is not None
    assert abs(far.grad.item()) < 1e-20
