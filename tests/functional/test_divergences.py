"""Slopes of f-divergences: against the divergence itself, differentiated, and far out."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.functional.divergences import (
    Alpha,
    ChiSquaredKL,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
)

P, Q = (0.6, 0.1, 0.3), (0.25, 0.25, 0.5)  # policy and reference over three outcomes


def mixture(p: float, q: float) -> float:
    return (p + q) / 2


CASES = [  # each divergence as textbooks write it, a sum over outcomes
    (ReverseKL(), lambda p, q: p * math.log(p / q)),
    (ForwardKL(), lambda p, q: q * math.log(q / p)),
    (
        JensenShannon(),
        lambda p, q: p * math.log(p / mixture(p, q)) + q * math.log(q / mixture(p, q)),
    ),
    (Alpha(0.3), lambda p, q: (q**0.3 * p**0.7 - 0.7 * p - 0.3 * q) / (0.3 * (0.3 - 1))),
    (ChiSquaredKL(), lambda p, q: (p - q) ** 2 / (2 * q) + p * math.log(p / q)),
]


@pytest.mark.parametrize(("divergence", "term"), CASES, ids=lambda x: type(x).__name__)
def test_a_slope_is_the_divergences_derivative_in_the_policy(divergence, term):
    """``d/dp q f(p / q) = f'(p / q)``, by a difference quotient; constants do not matter."""
    for p, q in zip(P, Q, strict=True):
        numeric = (term(p + 1e-6, q) - term(p - 1e-6, q)) / 2e-6
        at_one = (term(q + 1e-6, q) - term(q - 1e-6, q)) / 2e-6
        ratio = torch.tensor(math.log(p / q), dtype=torch.float64)
        assert divergence.slope(ratio).item() == pytest.approx(numeric - at_one, abs=1e-8)


def test_alpha_lies_between_the_two_kls():
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert_close(Alpha(1.0).slope(x), ForwardKL().slope(x))
    assert_close(Alpha(1e-9).slope(x), ReverseKL().slope(x))


@pytest.mark.parametrize("divergence", [ForwardKL(), Alpha(0.5), ChiSquaredKL(), JensenShannon()])
def test_slopes_rise_and_are_finite_wherever_a_float32_is(divergence: Divergence):
    x = torch.tensor([-1e4, -200.0, -40.0, 0.0, 40.0, 200.0, 1e4], requires_grad=True)
    y = divergence.slope(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    assert (x.grad >= 0).all()
    assert (y.diff() >= 0).all()


def test_beyond_its_edge_exp_is_a_line():
    """e^30 (1 + 12) at 42, with the slope of 30."""
    x = torch.tensor([-42.0], dtype=torch.float64, requires_grad=True)
    y = ForwardKL().slope(x)
    y.backward()
    assert y.item() == pytest.approx(1 - 13 * math.exp(30))
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(math.exp(30))


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_an_alpha_without_a_divergence_names_its_key(alpha):
    with pytest.raises(ConfigError, match=r"alpha > 0, got .* model\.init_args\.divergence"):
        Alpha(alpha)
