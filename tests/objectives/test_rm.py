"""Pairwise reward-model loss by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.rm import rm_loss


def test_value_worked_by_hand():
    """sigmoid(2 - 1) = 0.731059, so the loss is 0.313262; equal scores cost log 2."""
    losses, chosen, rejected = rm_loss(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0]))
    assert_close(losses, torch.tensor([0.313262, 0.693147]), atol=1e-6, rtol=0)
    assert (chosen.tolist(), rejected.tolist()) == ([2.0, 3.0], [1.0, 3.0])


@pytest.mark.parametrize("margin", [0.5, torch.tensor([0.5])])
def test_a_margin_must_be_exceeded(margin):
    losses = rm_loss(torch.tensor([1.0]), torch.tensor([0.5]), margin=margin).losses
    assert float(losses) == pytest.approx(math.log(2), abs=1e-6)


def test_a_common_offset_changes_nothing():
    a, b = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.5])
    assert_close(rm_loss(a + 7, b + 7).losses, rm_loss(a, b).losses)
