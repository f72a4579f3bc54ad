import torch
from torch.testing import assert_close

from alignlab.objectives.reinforce import reinforce_loss

MASK = torch.tensor([[True, True], [True, False]])


def test_value_and_gradient_worked_by_hand() -> None:
    """-(2 * -1 + -1 * -3 + 0.5 * -4) = 1; the slope is minus the advantage."""
    logps = torch.tensor([[-1.0, -3.0], [-4.0, -9.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, -1.0], [0.5, 7.0]])
    total, count = reinforce_loss(logps, advantages, MASK)
    total.backward()
    assert (total.item(), int(count)) == (1.0, 3)
    assert_close(logps.grad, torch.tensor([[-2.0, 1.0], [-0.5, 0.0]]))


def test_masked_cells_never_matter() -> None:
    logps = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], requires_grad=True)
    advantages = torch.tensor([[2.0, -1.0], [0.5, torch.inf]])
    total, _ = reinforce_loss(logps, advantages, MASK)
    total.backward()
    assert total.item() == 1.0
    assert logps.grad is not None
    assert logps.grad[1, 1] == 0
