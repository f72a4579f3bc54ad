"""Least squares on ratings by hand."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import DataError
from alignlab.objectives.regression import Regression, regression_loss
from tests.objectives.scorers import fixed

ADAM = partial(torch.optim.AdamW, lr=1e-2)


def test_value_and_gradient_worked_by_hand():
    """(1 - 3)^2 = 4 with slope -4, (2 - 2)^2 = 0."""
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    losses = regression_loss(scores, torch.tensor([3.0, 2.0]))
    losses.sum().backward()
    assert losses.tolist() == [4.0, 0.0]
    assert_close(scores.grad, torch.tensor([-4.0, 0.0]))


def test_each_completion_is_held_against_its_own_rating():
    trees = [
        PromptTree(0, "a", (1,), ((3, 2),), labels=(0.5,)),
        PromptTree(1, "b", (1,), ((4, 5, 2),), labels=(-1.0,)),
    ]
    losses, means = Regression(fixed([1.5, -3.0]), ADAM).losses(collate(trees))
    assert losses.tolist() == [1.0, 4.0]
    assert means["loss"].item() == 2.5


def test_rows_without_ratings_are_sent_away():
    module = Regression(fixed([1.0]), ADAM)
    with pytest.raises(DataError, match=r"needs ratings\. Use RatingData"):
        module.losses(collate([PromptTree(0, "a", (1,), ((3,),))]))
