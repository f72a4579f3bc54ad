import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.awr import awr_loss

MASK = torch.tensor([[True, True], [True, False]])


def test_value_and_gradient_worked_by_hand() -> None:
    """Weights exp(log 3 * 2 / 2) = 3 and exp(-1 / 2); -(3 * (-1 - 3) + 0.606531 * -4)."""
    logps = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], dtype=torch.float64).requires_grad_()
    high = 2 * math.log(3)
    advantages = torch.tensor([[high, high], [-1.0, torch.inf]], dtype=torch.float64)
    total, count = awr_loss(logps, advantages, MASK, beta=2.0, weight_cap=20.0)
    total.backward()
    assert total.item() == pytest.approx(12 + 4 * 0.606531, abs=1e-5)
    assert int(count) == 3
    expected = torch.tensor([[-3.0, -3.0], [-0.606531, 0.0]], dtype=torch.float64)
    assert_close(logps.grad, expected, atol=1e-6, rtol=0)


def test_no_weight_is_larger_than_the_cap_however_good_the_completion() -> None:
    logps = torch.tensor([[-1.0], [-2.0]])
    advantages = torch.tensor([[1e6], [0.0]])  # exp(1e6) is infinite
    total, _ = awr_loss(logps, advantages, torch.ones(2, 1), beta=1.0, weight_cap=5.0)
    assert total.item() == 5 * 1 + 1 * 2
