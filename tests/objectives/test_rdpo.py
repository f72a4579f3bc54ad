"""R-DPO by hand; what its length term does to a pair."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.rdpo import RDPO, rdpo_loss
from tests.objectives.direct import column, random_logps


def test_value_worked_by_hand():
    """0.5 * 2 + 0.25 * (6 - 2) = 2, and log(1 + e^-2) = 0.126928."""
    losses, chosen, rejected = rdpo_loss(*column(-1, -4, -2, -3, 6, 2), beta=0.5, alpha=0.25)
    assert losses.item() == pytest.approx(0.126928, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)


def test_without_a_price_it_is_dpo():
    logps, lengths = random_logps(0), random_logps(1, 2)
    assert_close(
        rdpo_loss(*logps, *lengths, beta=0.3, alpha=0.0).losses, dpo_loss(*logps, beta=0.3).losses
    )


def test_equal_lengths_cost_nothing():
    pc, pr, rc, rr = random_logps(0)
    length = torch.full((5,), 7)
    priced = rdpo_loss(pc, pr, rc, rr, length, length, beta=0.3, alpha=9.0).losses
    assert_close(priced, dpo_loss(pc, pr, rc, rr, beta=0.3).losses)


@pytest.mark.parametrize(("lengths", "slope"), [((9, 1), -0.003256), ((1, 9), -0.796744)])
def test_a_longer_chosen_completion_teaches_less(lengths, slope):
    """At the reference with alpha 0.6875: -beta sigma(-+5.5), sigma(5.5) = 0.995930 (beta 0.8)."""
    chosen, *others = column(0, 0, 0, 0)
    loss = rdpo_loss(
        chosen.requires_grad_(), *others, *column(*lengths), beta=0.8, alpha=0.6875
    ).losses
    loss.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(slope, abs=1e-6)


def test_a_negative_price_is_refused(build):
    with pytest.raises(ConfigError, match=r"RDPO needs alpha >= 0, got -1\. Set model\.init_args"):
        RDPO(build("llama"), torch.optim.AdamW, alpha=-1)
