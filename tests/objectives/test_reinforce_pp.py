import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.reinforce_pp import reinforce_pp_loss


def test_value_and_slopes_worked_by_hand() -> None:
    """Ratios 1.5, 1.25 | 0.5 with advantages 2, 1 | -1: held at 1.28, moving, held at 0.8."""
    logps = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], dtype=torch.float64)
    moved = [[math.log(1.5), math.log(1.25)], [math.log(0.5), 0.0]]
    old = logps - torch.tensor(moved, dtype=torch.float64)
    advantages = torch.tensor([[2.0, 1.0], [-1.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    logps.requires_grad_()
    total, count = reinforce_pp_loss(
        logps, old, advantages, mask, clip_epsilon=0.2, clip_epsilon_high=0.28
    )
    total.backward()
    assert total.item() == pytest.approx(-2.56 - 1.25 + 0.8)
    assert int(count) == 3
    slopes = [[0.0, -1.25], [0.0, 0.0]]
    assert_close(logps.grad, torch.tensor(slopes, dtype=torch.float64))
