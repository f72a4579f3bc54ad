import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.objectives.grpo import grpo_loss

MASK = torch.tensor([[True, True], [True, False]])
# Ratios 1.5, 1 and 0.5 to the old policy, and pi_ref / pi = 2, 1 and 4.
LOGPS = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], dtype=torch.float64)
OLD = LOGPS - torch.tensor([[math.log(1.5), 0.0], [math.log(0.5), 0.0]], dtype=torch.float64)
REF = LOGPS + torch.tensor([[math.log(2), 0.0], [math.log(4), 0.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[2.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)


def loss(logps: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    given: dict[str, Any] = {"clip_epsilon": 0.2, "kl_coef": 0.5} | settings
    return grpo_loss(logps, OLD, REF, ADVANTAGES, MASK, **given)


def test_value_and_gradient_worked_by_hand() -> None:
    """Surrogates -2.4 (held at 1.2), -2 and 0.8 (held at 0.8); k3 = 1 - log 2, 0 and 3 - log 4.

    Completion 1: (-4.4 + 0.5 * 0.306853) / 2; completion 2: 0.8 + 0.5 * 1.613706. The slope of k3
    is 1 - pi_ref / pi.
    """
    logps = LOGPS.clone().requires_grad_()
    total, count = loss(logps)
    total.backward()
    assert total.item() == pytest.approx(-2.123287 + 1.606853, abs=1e-6)
    assert int(count) == 2
    slopes = [[0.5 * (1 - 2) / 2, -2 / 2], [0.5 * (1 - 4), 0.0]]
    assert_close(logps.grad, torch.tensor(slopes, dtype=torch.float64))


def test_a_constant_normaliser_treats_all_tokens_alike() -> None:
    """The same sums over 10 tokens each: -4.246574 / 10 + 1.606853 / 10."""
    total, _ = loss(LOGPS, normaliser=10.0)
    assert total.item() == pytest.approx(-0.4246574 + 0.1606853, abs=1e-6)


def test_the_mean_over_tokens_is_a_sum_and_a_count_of_tokens() -> None:
    """-4.246574 + 1.606853, of 2 and 1 tokens; every token has the same weight."""
    logps = LOGPS.clone().requires_grad_()
    total, count = loss(logps, normaliser="tokens")
    total.backward()
    assert total.item() == pytest.approx(-4.246574 + 1.606853, abs=1e-6)
    assert int(count) == 3
    slopes = [[0.5 * (1 - 2), -2.0], [0.5 * (1 - 4), 0.0]]
    assert_close(logps.grad, torch.tensor(slopes, dtype=torch.float64))


def test_a_wider_range_upwards() -> None:
    """The token at 1.5 moves again, so 1.5 * 2 = 3; the one at 0.5 stays held at 0.8."""
    total, _ = loss(LOGPS, kl_coef=0.0, clip_epsilon_high=0.6)
    assert total.item() == pytest.approx(-(3 + 2) / 2 + 0.8)


def test_a_penalty_weighted_by_the_ratio() -> None:
    """k3 times 1.5, 1 and 0.5; its slope is ratio * log(pi / pi_ref), not ratio * (1 - r)."""
    logps = LOGPS.clone().requires_grad_()
    total, _ = loss(logps, weighted_kl=True)
    total.backward()
    by_hand = (-4.4 + 0.5 * 0.460279) / 2 + 0.8 + 0.5 * 0.806853
    assert total.item() == pytest.approx(by_hand, abs=1e-6)
    slopes = [[0.5 * 1.5 * -0.6931472 / 2, -2 / 2], [0.5 * 0.5 * -1.3862944, 0.0]]
    assert_close(logps.grad, torch.tensor(slopes, dtype=torch.float64))


def test_without_penalty_the_reference_does_not_enter() -> None:
    """-4.4 / 2 + 0.8."""
    total, _ = loss(LOGPS, kl_coef=0.0)
    assert total.item() == pytest.approx(-1.4)


def test_a_completion_without_a_token_adds_nothing() -> None:
    """Nothing divided by no tokens is nothing: sum and count are those of the other row."""
    none = torch.tensor([[True, True], [False, False]])
    first = slice(0, 1)
    alone = grpo_loss(
        LOGPS[first], OLD[first], REF[first], ADVANTAGES[first], none[first],
        clip_epsilon=0.2, kl_coef=0.5,
    )  # fmt: skip
    both = grpo_loss(LOGPS, OLD, REF, ADVANTAGES, none, clip_epsilon=0.2, kl_coef=0.5)
    assert_close(both, alone)
