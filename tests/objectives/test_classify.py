"""Classification with an auxiliary language-modelling loss, by hand."""

import math

import pytest
import torch

from alignlab.objectives.classify import classify_loss


def test_value_worked_by_hand():
    """Logits (0, log 3): the second class has 3/4. Two tokens of 6 nats in all: 3 nats each."""
    losses = classify_loss(
        torch.tensor([[0.0, math.log(3)]] * 2),
        torch.tensor([1, 0]),
        torch.tensor([6.0, 0.0]),
        torch.tensor([2, 0]),
        alpha=0.5,
    )
    assert losses.tolist() == pytest.approx([math.log(4 / 3) + 1.5, math.log(4)], abs=1e-6)
