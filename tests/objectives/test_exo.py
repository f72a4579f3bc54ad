"""EXO on pairs by hand, and where it is least."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.exo import EXO, exo_loss
from tests.objectives.direct import column, random_logps


def test_value_and_slope_worked_by_hand():
    """Margin 1: 0.731 (log 0.731 - log 0.9) + 0.269 (log 0.269 - log 0.1) = 0.114082.

    The slope is 0.731 * 0.269 * (1 - log 9), times beta.
    """
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    losses, chosen, rejected = exo_loss(pc, pr, rc, rr, beta=0.5, label_smoothing=0.1)
    losses.backward()
    assert losses.item() == pytest.approx(0.114082, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert pc.grad is not None
    assert pc.grad.item() == pytest.approx(-0.117694, abs=1e-6)
    assert_close(pr.grad, -pc.grad)


def test_a_pair_that_agrees_with_its_label_costs_nothing():
    """log 9 is the log-odds of 0.9; on both sides the loss rises."""
    at = [math.log(9) + d for d in (-1.0, 0.0, 1.0)]
    below, met, above = (
        exo_loss(*column(x, 0, 0, 0), beta=1.0, label_smoothing=0.1).losses.item() for x in at
    )
    assert met == pytest.approx(0, abs=1e-12)
    assert min(below, above) > 0.01


def test_only_the_margin_counts():
    pc, pr, rc, rr = random_logps(0)
    both = exo_loss(pc + 3, pr + 3, rc, rr, beta=0.4, label_smoothing=0.01).losses
    assert_close(both, exo_loss(pc, pr, rc, rr, beta=0.4, label_smoothing=0.01).losses)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.5, math.nan])
def test_a_smoothing_without_a_finite_optimum_names_its_key(build, label_smoothing):
    with pytest.raises(ConfigError, match=r"label_smoothing in \(0, 0\.5\), got"):
        EXO(build("llama"), torch.optim.AdamW, label_smoothing=label_smoothing)
