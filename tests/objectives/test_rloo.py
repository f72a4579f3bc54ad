import torch
from torch.testing import assert_close

from alignlab.objectives.rloo import rloo_loss

MASK = torch.tensor([[True, True], [True, False]])


def test_a_completion_is_one_action() -> None:
    """-(2 * (-1 - 3) + -1 * -4) = 4; every token of a completion has the same slope."""
    logps = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], requires_grad=True)
    total, count = rloo_loss(logps, torch.tensor([2.0, -1.0]), MASK)
    total.backward()
    assert (total.item(), int(count)) == (4.0, 2)
    assert_close(logps.grad, torch.tensor([[-2.0, -2.0], [1.0, 0.0]]))
