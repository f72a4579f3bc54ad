import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.functional import log1mexp


@pytest.mark.parametrize(
    ("x", "value", "slope"),
    [
        # -x is tiny: log(-x) + x / 2, slope 1 / x; x far below: -e^x for both
        (-1e-12, math.log(1e-12), -1e12),
        (-math.log(2), -math.log(2), -1.0),
        (-math.log(4), math.log(3 / 4), -1 / 3),
        (-math.log(4 / 3), math.log(1 / 4), -3.0),
        (-50.0, -1.9287498479639178e-22, -1.9287498479639178e-22),
    ],
)
def test_value_and_slope(x: float, value: float, slope: float) -> None:
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = log1mexp(leaf)
    y.backward()
    assert_close(y.item(), value, rtol=1e-11, atol=0)
    assert leaf.grad is not None
    assert_close(leaf.grad.item(), slope, rtol=1e-10, atol=0)


def test_float32_is_finite_with_finite_gradients_down_to_minus_50() -> None:
    x = -torch.logspace(-12, math.log10(50), 200).requires_grad_()
    (grad,) = torch.autograd.grad(log1mexp(x).sum(), x)
    assert log1mexp(x).isfinite().all()
    assert grad.isfinite().all()


def test_edge_and_beyond() -> None:
    assert log1mexp(torch.tensor(0.0)) == -torch.inf
    assert log1mexp(torch.tensor(0.1)).isnan()
