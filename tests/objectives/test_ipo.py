"""IPO's loss by hand, summed and per token, and where it is least."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.ipo import IPO, ipo_loss
from tests.objectives.direct import column, random_logps


def test_value_worked_by_hand():
    """Log-ratios 1 and -1, so h = 2; the target at tau 0.5 is 1, and (2 - 1)^2 = 1."""
    losses, chosen, rejected = ipo_loss(*column(-1, -4, -2, -3), tau=0.5)
    assert (losses.item(), chosen.item(), rejected.item()) == (1.0, 0.5, -0.5)


def test_value_per_token_worked_by_hand():
    """Over 2 and 4 tokens: 0.5 and -0.25, so h = 0.75 and (0.75 - 1)^2 = 0.0625."""
    lengths = torch.tensor([2]), torch.tensor([4])
    losses, chosen, rejected = ipo_loss(*column(-1, -4, -2, -3), tau=0.5, lengths=lengths)
    assert (losses.item(), chosen.item(), rejected.item()) == (0.0625, 0.25, -0.125)


def test_said_twice_the_mean_stays_and_the_sum_doubles():
    logps, lengths = random_logps(0), (torch.tensor([3.0] * 5), torch.tensor([5.0] * 5))
    twice = [2 * x for x in logps]
    mean = ipo_loss(*logps, tau=0.2, lengths=lengths).losses
    doubled = lengths[0] * 2, lengths[1] * 2
    assert_close(ipo_loss(*twice, tau=0.2, lengths=doubled).losses, mean)
    # A margin of 2 h misses the target 2 / (2 * 0.2) by twice as much.
    assert_close(ipo_loss(*twice, tau=0.1).losses, 4 * ipo_loss(*logps, tau=0.2).losses)


@pytest.mark.parametrize(("margin", "slope"), [(1.0, -3.0), (2.5, 0.0), (4.0, 3.0)])
def test_the_margin_is_pulled_to_its_target_from_both_sides(margin, slope):
    """tau 0.2 asks for 2.5; the slope is twice the distance."""
    chosen, *others = column(margin, 0, 0, 0)
    ipo_loss(chosen.requires_grad_(), *others, tau=0.2).losses.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(slope)


def test_a_tau_that_cannot_be_is_named(build):
    with pytest.raises(
        ConfigError, match=r"IPO needs tau > 0, got 0\.0\. Set model\.init_args\.tau"
    ):
        IPO(build("llama"), torch.optim.AdamW, tau=0.0)
