"""NCA on pairs by hand: chosen and rejected count each by itself."""

import pytest
from torch.testing import assert_close

from alignlab.objectives.nca import nca_loss
from tests.objectives.direct import column, random_logps


def test_value_and_slopes_worked_by_hand():
    """s = 0.5 and -0.5: 0.474077 + (0.974077 + 0.474077) / 2 = 1.198154.

    Slopes are beta (sigma(0.5) / 2 - sigma(-0.5)) and beta sigma(-0.5) / 2.
    """
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    losses, chosen, rejected = nca_loss(pc, pr, rc, rr, beta=0.5)
    losses.backward()
    assert losses.item() == pytest.approx(1.198154, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert pc.grad is not None
    assert pr.grad is not None
    assert pc.grad.item() == pytest.approx(-0.033156, abs=1e-6)
    assert pr.grad.item() == pytest.approx(0.094385, abs=1e-6)


def test_the_rejected_completion_does_not_move_what_is_learned_of_the_chosen_one():
    pc, pr, rc, rr = random_logps(0)
    grads = []
    for other in (pr, pr - 5):
        policy = pc.clone().requires_grad_()
        nca_loss(policy, other, rc, rr, beta=0.3).losses.sum().backward()
        grads.append(policy.grad)
    assert_close(*grads)
