import math
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from torch.testing import assert_close

from alignlab.functional import kl_full, kl_k1, kl_k2, kl_k3

P, Q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
KL = 0.25 * math.log(2)  # 0.5 log 2 + 0 - 0.25 log 2


def logs(probs: list[float]) -> torch.Tensor:
    return torch.tensor(probs, dtype=torch.float64).log()


def test_values_worked_by_hand() -> None:
    """log pi = log 1/2 and log ref = log 1/4: r = 1/2, log r = -0.693147."""
    policy, ref = logs([0.5]), logs([0.25])
    assert_close(kl_k1(policy, ref).item(), 0.693147, atol=1e-6, rtol=0)
    assert_close(kl_k2(policy, ref).item(), 0.240227, atol=1e-6, rtol=0)
    assert_close(kl_k3(policy, ref).item(), 0.193147, atol=1e-6, rtol=0)


def test_full_kl_worked_by_hand() -> None:
    assert_close(kl_full(logs(P), logs(Q)).item(), KL)
    stacked = kl_full(torch.stack([logs(P), logs(Q)]), torch.stack([logs(Q), logs(Q)]))
    assert_close(stacked, torch.tensor([KL, 0.0], dtype=torch.float64))


def test_k1_and_k3_have_the_exact_mean_and_k2_its_own() -> None:
    p, log_p, log_q = torch.tensor(P, dtype=torch.float64), logs(P), logs(Q)
    assert_close((p * kl_k1(log_p, log_q)).sum().item(), KL)
    assert_close((p * kl_k3(log_p, log_q)).sum().item(), KL)
    # 1/2 * (0.5 * log(2)^2 + 0.25 * log(2)^2)
    assert_close((p * kl_k2(log_p, log_q)).sum().item(), 0.375 * math.log(2) ** 2)


def test_k3_keeps_its_digits_near_equal_policies() -> None:
    """k3 = x^2 / 2 + x^3 / 6 + ... with x = log r = 1e-4; never negative."""
    policy = torch.tensor([-2.0, -30.0], dtype=torch.float64)
    assert_close(
        kl_k3(policy, policy + 1e-4), torch.full_like(policy, 5.000166671e-9), rtol=1e-6, atol=0
    )
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert (kl_k3(noise, torch.zeros(1000)) >= 0).all()


def test_impossible_tokens_cost_nothing_and_get_no_gradient() -> None:
    logits = torch.tensor([1.0, 0.0, -torch.inf], dtype=torch.float64, requires_grad=True)
    ref = torch.tensor([0.0, 1.0, -torch.inf], dtype=torch.float64).log_softmax(-1)
    kl = kl_full(logits.log_softmax(-1), ref)
    kl.backward()
    assert_close(kl.item(), math.tanh(0.5))  # p1 - p2 of softmax(1, 0), worked by hand
    assert logits.grad is not None
    # d KL / d logit_1 = p1 * (log p1/q1 - KL) = p1 * (1 - KL)
    assert_close(logits.grad[0].item(), (1 - math.tanh(0.5)) / (1 + math.exp(-1)))
    assert logits.grad[2] == 0


@pytest.mark.parametrize("q", [[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
def test_a_possible_token_that_q_excludes_costs_infinity(q: list[float]) -> None:
    assert kl_full(logs(P), logs(q)).isinf().item() == (0.0 in q)


def test_types_are_checked_while_the_tests_run() -> None:
    """See ``pytest_configure`` in tests/conftest.py."""
    no_tensor: Any = [0.0]
    with pytest.raises(BeartypeCallHintParamViolation, match="logps"):
        kl_k1(no_tensor, torch.zeros(1))
