"""Maximum likelihood: value, count, gradient by hand."""

import torch
from torch.testing import assert_close

from alignlab.objectives.sft import sft_loss


def test_sum_and_count_by_hand():
    """-(-1 - 2 - 4) = 7 over 3 tokens; the masked cells hold nonsense."""
    logps = torch.tensor([[-1.0, -2.0, torch.nan], [-4.0, 99.0, torch.inf]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    total, count = sft_loss(logps, mask)
    assert (float(total), int(count)) == (7.0, 3)


def test_a_token_of_probability_one_still_counts():
    total, count = sft_loss(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert (float(total), int(count)) == (0.0, 2)


def test_gradient_is_minus_one_under_the_mask():
    logps = torch.full((2, 2), -1.0, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    sft_loss(logps, mask)[0].backward()
    assert_close(logps.grad, -mask.float())
