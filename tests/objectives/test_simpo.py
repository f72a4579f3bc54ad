"""SimPO by hand, and its margin under both names."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.simpo import SimPO, simpo_loss
from tests.objectives.direct import column, random_logps

HAND = column(-2, -9, 4, 3)  # mean log-probs -0.5 and -3


@pytest.mark.parametrize("margin", [{"gamma": 3.0}, {"gamma_beta_ratio": 1.5}])
def test_value_worked_by_hand(margin):
    """Rewards -1 and -6 at beta 2: 5 - 3 = 2, and log(1 + e^-2) = 0.126928."""
    losses, chosen, rejected = simpo_loss(*HAND, beta=2.0, **margin)
    assert losses.item() == pytest.approx(0.126928, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (-1.0, -6.0)


def test_both_names_give_the_same_numbers_and_a_margin_costs():
    logps, lengths = random_logps(0, 2), [torch.full((5,), 3), torch.full((5,), 7)]
    named = simpo_loss(*logps, *lengths, beta=2.5, gamma=1.0).losses
    assert_close(simpo_loss(*logps, *lengths, beta=2.5, gamma_beta_ratio=0.4).losses, named)
    assert (named > simpo_loss(*logps, *lengths, beta=2.5, gamma=0.0).losses).all()


@pytest.mark.parametrize("margin", [{}, {"gamma": 1.0, "gamma_beta_ratio": 0.5}])
def test_the_margin_has_exactly_one_name(build, margin):
    with pytest.raises(ConfigError, match="exactly one of gamma"):
        simpo_loss(*HAND, beta=2.0, **margin)
    with pytest.raises(ConfigError, match="exactly one of gamma"):
        SimPO(build("llama"), torch.optim.AdamW, **margin)


def test_gradient_where_the_margin_is_met():
    """There sigma is 1/2: beta / 2 over the completion's own length."""
    pc, pr, *lengths = column(-2, -9, 4, 3)
    loss = simpo_loss(pc.requires_grad_(), pr.requires_grad_(), *lengths, beta=2.0, gamma=5.0)
    loss.losses.sum().backward()
    assert pc.grad is not None
    assert pr.grad is not None
    assert (pc.grad.item(), pr.grad.item()) == pytest.approx((-1 / 4, 1 / 3))


def test_saying_a_completion_twice_earns_nothing():
    pc, pr, *lengths = column(-2, -9, 4, 3)
    once = simpo_loss(pc, pr, *lengths, beta=2.0, gamma=1.0)
    twice = simpo_loss(2 * pc, pr, 2 * lengths[0], lengths[1], beta=2.0, gamma=1.0)
    assert_close(twice.losses, once.losses)


@pytest.mark.parametrize(
    ("alpha", "loss", "rewards"),
    [(0.5, 0.000075, (-1.136102, -13.926756)), (-1.0, 0.686426, (-0.786939, -1.900426))],
)
def test_alphapos_value_worked_by_hand(alpha, loss, rewards):
    """Of the means -0.5 and -3: (1 - e^0.25) / 0.5 and (1 - e^1.5) / 0.5, times 2; less 3.3.

    At -1, e^-0.5 - 1 and e^-3 - 1, times 2, whose difference 1.113487 is less 1.1.
    """
    gamma = 3.3 if alpha > 0 else 1.1
    losses, *found = simpo_loss(*HAND, beta=2.0, gamma=gamma, alpha=alpha)
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert [x.item() for x in found] == pytest.approx(rewards, abs=1e-6)


def test_a_small_alpha_is_nearly_simpo():
    logps, lengths = random_logps(0, 2), [torch.full((5,), 3), torch.full((5,), 7)]
    plain = simpo_loss(*logps, *lengths, beta=2.5, gamma=1.0)
    bent = simpo_loss(*logps, *lengths, beta=2.5, gamma=1.0, alpha=1e-7)
    assert_close(bent.losses, plain.losses, rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.25, 1.0, -1.0])
def test_extreme_log_probs_are_finite(alpha):
    """e^200 would overflow in float32."""
    far = torch.tensor([-200.0, -1.0, -200.0]).requires_grad_()
    other, one = torch.tensor([-1.0, -200.0, -200.0]), torch.ones(3)
    losses = simpo_loss(far, other, one, one, beta=2.0, gamma=0.5, alpha=alpha).losses
    losses.sum().backward()
    assert losses.isfinite().all()
    assert far.grad is not None
    assert far.grad.isfinite().all()
