import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.functional import beyond_rounding, log1mexp


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


def test_the_largest_gap_counts_in_float32_and_the_mean_square_in_bfloat16() -> None:
    """One token of a hundred off by 0.9 nat is a root mean square of 0.09, by 1.1 of 0.11."""
    zeros = torch.zeros(100)
    one = torch.zeros(100)
    for off, exact, coarse in [(9e-4, None, None), (2e-3, 2e-3, None), (0.9, 0.9, None),
                               (1.1, 1.1, 0.11)]:  # fmt: skip
        one[3] = off
        for dtype in (torch.float32, torch.float64):
            assert beyond_rounding(zeros, one, dtype) == (exact and pytest.approx(exact))
        for dtype in (torch.bfloat16, torch.float16):
            assert beyond_rounding(one, zeros, dtype) == (coarse and pytest.approx(coarse))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gap_that_is_no_number_is_beyond_rounding(dtype: torch.dtype) -> None:
    gap = beyond_rounding(torch.tensor([math.nan, 0.0]), torch.zeros(2), dtype)
    assert gap is not None
    assert math.isnan(gap)
