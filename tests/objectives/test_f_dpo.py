"""DPO under other divergences by hand; chi-PO's clipped margins."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.functional.divergences import (
    Alpha,
    ChiSquaredKL,
    ForwardKL,
    JensenShannon,
    ReverseKL,
)
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.f_dpo import FDPO, f_dpo_loss
from tests.objectives.direct import column, random_logps

TWICE_AND_HALF = (math.log(2) - 1, -math.log(2) - 3, -1.0, -3.0)  # likely as the reference says


@pytest.mark.parametrize(
    ("divergence", "won", "lost", "loss"),
    [
        (ForwardKL(), 1 - 1 / 2, 1 - 2, 0.386871),
        (JensenShannon(), math.log(4 / 3), math.log(2 / 3), 0.534800),
        (Alpha(0.5), 2 - math.sqrt(2), 2 - 2 * math.sqrt(2), 0.400834),
        (ChiSquaredKL(), 1 + math.log(2), -1 / 2 - math.log(2), 0.212029),
    ],
    ids=lambda x: type(x).__name__,
)
def test_value_worked_by_hand(divergence, won, lost, loss):
    """beta 0.5: the loss is log(1 + exp(-(won - lost) / 2))."""
    losses, chosen, rejected = f_dpo_loss(*column(*TWICE_AND_HALF), beta=0.5, divergence=divergence)
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert chosen.item() == pytest.approx(won / 2)
    assert rejected.item() == pytest.approx(lost / 2)


def test_with_the_reverse_kl_it_is_dpo():
    four = random_logps(0)
    ours = f_dpo_loss(*four, beta=0.3, divergence=ReverseKL())
    for one, other in zip(ours, dpo_loss(*four, beta=0.3), strict=True):
        assert_close(one, other)


def test_the_forward_kl_weighs_completions_by_how_rare_they_became():
    """Slopes are beta sigma(-margin) / u: four times as large at u = 1/2 as at 2."""
    pc, pr, rc, rr = (x.requires_grad_() for x in column(*TWICE_AND_HALF))
    f_dpo_loss(pc, pr, rc, rr, beta=0.5, divergence=ForwardKL()).losses.backward()
    wrong = 1 / (1 + math.exp(0.75))
    assert pc.grad is not None
    assert pc.grad.item() == pytest.approx(-0.5 * wrong / 2)
    assert pr.grad.item() == pytest.approx(0.5 * wrong * 2)


@pytest.mark.parametrize(("side", "loss"), [(1.0, 0.126928), (-1.0, 2.126928)])
def test_a_margin_beyond_its_bound_counts_as_the_bound_and_teaches_nothing(side, loss):
    """log(1 + e^-2) and log(1 + e^2), where the ratios alone would ask for millions."""
    policy, *others = column(15 * side, 0, 0, 15 * side)
    policy.requires_grad_()
    found = f_dpo_loss(policy, *others, beta=1.0, divergence=ChiSquaredKL(), max_margin=2.0)
    found.losses.backward()
    assert found.losses.item() == pytest.approx(loss, abs=1e-6)
    assert policy.grad is not None
    assert policy.grad.item() == 0
    assert abs(found.chosen_rewards.item()) > 15  # what is logged is not clipped


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"max_margin": 0.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"FDPO needs {name} > 0, got 0\.0\. Set model"):
        FDPO(build("llama"), torch.optim.AdamW, ForwardKL(), **setting)
