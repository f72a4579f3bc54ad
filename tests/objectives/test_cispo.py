import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.cispo import cispo_loss

MASK = torch.tensor([[True, True], [True, False]])
LOGPS = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], dtype=torch.float64)
OLD = LOGPS - torch.tensor([[math.log(1.5), 0.0], [math.log(0.5), 0.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[2.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)


@pytest.mark.parametrize(("cap", "weight"), [(1.2, 1.2), (5.0, 1.5)])
def test_no_token_is_dropped_and_no_weight_is_above_the_cap(cap: float, weight: float) -> None:
    """Weights 1.5 or the cap, 1 and 0.5: -(w * 2 * -1 + 2 * -3) - 0.5 * -1 * -4, slopes -w * A."""
    logps = LOGPS.clone().requires_grad_()
    total, count = cispo_loss(logps, OLD, ADVANTAGES, MASK, weight_cap=cap)
    total.backward()
    assert total.item() == pytest.approx(2 * weight + 6 - 2)
    assert int(count) == 3
    slopes = [[-2 * weight, -2.0], [0.5, 0.0]]
    assert_close(logps.grad, torch.tensor(slopes, dtype=torch.float64))


@pytest.mark.parametrize(("log_ratio", "weight"), [(200.0, 5.0), (-200.0, 0.0)])
def test_far_ratios_are_finite_in_float32(log_ratio: float, weight: float) -> None:
    logps = torch.tensor([[-2.0]], requires_grad=True)
    old = logps.detach() - log_ratio
    total, _ = cispo_loss(logps, old, torch.tensor([[3.0]]), MASK[:1, :1], weight_cap=5.0)
    total.backward()
    assert total.item() == pytest.approx(6 * weight)
    assert_close(logps.grad, torch.tensor([[-3 * weight]]))
