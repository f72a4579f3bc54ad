"""SLiC-HF by hand, on both sides of its kink."""

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.objectives.slic import SLiC, slic_loss
from tests.objectives.direct import column


@pytest.mark.parametrize(
    ("rejected", "loss", "slopes"),
    [
        (-1.5, 0.5 + 0.1, (-1.1, 1.0)),  # half a nat of the one that is asked for
        (-3.0, 0.1, (-0.1, 0.0)),  # two nats: only the likelihood is left
        (0.0, 2.0 + 0.1, (-1.1, 1.0)),
    ],
)
def test_value_and_slopes_worked_by_hand(rejected, loss, slopes):
    pc, pr = (x.requires_grad_() for x in column(-1, rejected))
    losses, chosen, other = slic_loss(pc, pr, delta=1.0, lam=0.1)
    losses.sum().backward()
    assert losses.item() == pytest.approx(loss)
    assert (chosen.item(), other.item()) == (-1.0, rejected)
    assert pc.grad is not None
    assert pr.grad is not None
    assert (pc.grad.item(), pr.grad.item()) == pytest.approx(slopes)


@pytest.mark.parametrize("setting", [{"delta": 0.0}, {"lam": -0.1}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"SLiC needs {name} .* Set model\.init_args\.{name}"):
        SLiC(build("llama"), torch.optim.AdamW, **setting)
