"""QRPO by hand: quantiles with ties, the exact normaliser, the loss of a completion."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.qrpo import log_partition, qrpo_loss, quantiles
from tests.objectives.direct import column

BETA = 1 / math.log(16)  # exp(q / beta) is 16^q


def test_quantiles_worked_by_hand() -> None:
    """Of 1, 3, 3 and 2, one is no larger than 1, four are no larger than 3, two than 2."""
    rewards = torch.tensor([1.0, 3.0, 3.0, 2.0, -5.0, -6.0])
    group = torch.tensor([0, 0, 0, 0, 1, 1])
    assert quantiles(rewards, group).tolist() == [0.25, 1.0, 1.0, 0.5, 1.0, 0.5]
    unit = quantiles(1e3 * rewards + 7, group)
    assert unit.tolist() == quantiles(rewards, group).tolist()


def test_the_normaliser_worked_by_hand() -> None:
    """16^q of the first prompt is 2, 16, 16 and 4, 9.5 on average; of the second 16 and 4."""
    q = torch.tensor([0.25, 1.0, 1.0, 0.5, 1.0, 0.5], dtype=torch.float64)
    found = log_partition(q, torch.tensor([0, 0, 0, 0, 1, 1]), beta=BETA)
    assert_close(found.exp(), torch.tensor([9.5] * 4 + [10.0] * 2, dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.03, 0.3, 3.0])
def test_of_many_candidates_it_is_the_papers_closed_form(beta: float) -> None:
    """The integral of exp(q / beta) over [0, 1], in which beta may be large."""
    q = torch.arange(1, 100_001, dtype=torch.float64) / 100_000
    found = log_partition(q, torch.zeros(100_000, dtype=torch.long), beta=beta)[0].item()
    assert found == pytest.approx(1 / beta + math.log(beta * -math.expm1(-1 / beta)), abs=2e-4)


def test_value_and_gradient_worked_by_hand() -> None:
    """At a log-ratio of -log Z what is left is the quantile: 0.25^2, slope -2 beta 0.25."""
    logps, ref, q, log_z = column(-3 - math.log(9.5), -3, 0.25, math.log(9.5))
    loss = qrpo_loss(logps.requires_grad_(), ref, q, log_z, beta=BETA)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.0625)
    assert logps.grad is not None
    assert logps.grad.item() == pytest.approx(-0.5 * BETA)


def test_before_any_step_it_is_the_distance_of_the_quantile_from_log_z() -> None:
    logps, q, log_z = column(-7, 1.0, math.log(9.5))
    first = qrpo_loss(logps, logps, q, log_z, beta=BETA).item()
    assert first == pytest.approx((1 - math.log(9.5) / math.log(16)) ** 2)


@pytest.mark.parametrize("ratio", [-200.0, 200.0])
def test_finite_for_extreme_log_ratios_and_a_small_beta(ratio: float) -> None:
    q, group = torch.tensor([0.5, 1.0]), torch.tensor([0, 0])
    log_z = log_partition(q, group, beta=1e-3)  # exp(1000) is infinite
    losses = qrpo_loss(torch.tensor([ratio, -ratio]), torch.zeros(2), q, log_z, beta=1e-3)
    assert log_z[0].item() == pytest.approx(1000 - math.log(2))
    assert losses.isfinite().all()
