"""The hinge loss by hand, on both sides of its kink."""

import pytest
from torch.testing import assert_close

from alignlab.objectives.hinge import hinge_loss
from tests.objectives.direct import column


@pytest.mark.parametrize(
    ("beta", "loss", "slope"),
    [
        (0.25, 0.5, -0.25),  # h = 2 of the 4 that are asked for
        (0.75, 0.0, 0.0),  # 2 where 4/3 would do: nothing more to learn
        (0.0625, 0.875, -0.0625),
    ],
)
def test_value_and_slope_worked_by_hand(beta, loss, slope):
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    losses, chosen, rejected = hinge_loss(pc, pr, rc, rr, beta=beta)
    losses.sum().backward()
    assert (losses.item(), chosen.item(), rejected.item()) == (loss, beta, -beta)
    assert pc.grad is not None
    assert pc.grad.item() == slope
    assert_close(pr.grad, -pc.grad)


def test_a_wrong_pair_costs_the_more_the_worse_it_is():
    losses = [hinge_loss(*column(0, h, 0, 0), beta=0.5).losses.item() for h in (0.0, 2.0, 10.0)]
    assert losses == [1.0, 2.0, 6.0]
