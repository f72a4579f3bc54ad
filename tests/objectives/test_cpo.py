"""CPO by hand, and as DPO under a reference that has no preference."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.cpo import CPO, cpo_loss
from alignlab.objectives.dpo import dpo_loss
from tests.objectives.direct import column, random_logps


def test_value_worked_by_hand():
    """0.5 * 3 = 1.5, log(1 + e^-1.5) = 0.201413, and 0.1 * 1 for the likelihood."""
    losses, chosen, rejected = cpo_loss(*column(-1, -4), beta=0.5, lam=0.1)
    assert losses.item() == pytest.approx(0.301413, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (-0.5, -2.0)


def test_it_is_dpo_under_a_uniform_reference_plus_likelihood():
    chosen, rejected = random_logps(0, 2)
    uniform = torch.full_like(chosen, -3.7)
    dpo = dpo_loss(chosen, rejected, uniform, uniform, beta=0.3).losses
    assert_close(cpo_loss(chosen, rejected, beta=0.3, lam=0.7).losses, dpo - 0.7 * chosen)


def test_gradient_where_both_are_equally_likely():
    chosen, rejected = (x.requires_grad_() for x in column(-2, -2))
    cpo_loss(chosen, rejected, beta=0.5, lam=0.1).losses.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.25 - 0.1, 0.25))


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"lam": -1.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"CPO needs {name} .* Set model\.init_args\.{name}"):
        CPO(build("llama"), torch.optim.AdamW, **setting)
