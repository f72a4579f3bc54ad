"""Cal-DPO by hand: the contrast without beta, the targets with it."""

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.objectives.cal_dpo import CalDPO, cal_dpo_loss
from tests.objectives.direct import column


@pytest.mark.parametrize(("cal_coef", "loss"), [(1.0, 0.626928), (0.5, 0.376928), (0.0, 0.126928)])
def test_value_worked_by_hand(cal_coef, loss):
    """Log-ratios 1.5 and -0.5; log(1 + e^-2) = 0.126928, targets 1 and -1 at beta 0.5: 2 / 4."""
    logps = column(-0.5, -3.5, -2, -3)
    losses, chosen, rejected = cal_dpo_loss(*logps, beta=0.5, cal_coef=cal_coef)
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.75, -0.25)


def test_slopes_where_training_starts():
    """- sigmoid(0) - 2 / (2 beta) of the chosen, the opposite of the rejected; beta 0.25: -4.5."""
    pc, pr, rc, rr = column(-2, -3, -2, -3)
    cal_dpo_loss(
        pc.requires_grad_(), pr.requires_grad_(), rc, rr, beta=0.25
    ).losses.sum().backward()
    assert (pc.grad.item(), pr.grad.item()) == (-4.5, 4.5)


def test_extreme_log_ratios_are_finite():
    far, zero = torch.tensor([200.0, -200.0]).requires_grad_(), torch.zeros(2)
    losses = cal_dpo_loss(far, -far, zero, zero, beta=0.5).losses
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([2 * 199.0**2, 400 + 2 * 201.0**2])
    assert far.grad is not None
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"cal_coef": -1.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"CalDPO needs {name} .*model\.init_args\.{name}"):
        CalDPO(build("llama"), torch.optim.AdamW, **setting)
