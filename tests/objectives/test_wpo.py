"""WPO by hand; its weights by a loop over tokens, without a gradient."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.objectives.wpo import WPO, wpo_loss
from tests.objectives.direct import PAIRS, by_loop, column, distributions, moved


@pytest.mark.parametrize(
    ("log_weights", "cap", "loss"),
    [
        ((-0.2, -0.5), 1.0, 0.155561),  # e^-0.7 = 0.496585
        ((0.4, 0.1), 1.0, 0.313262),
        ((0.4, 0.1), math.inf, 0.516481),  # e^0.5 = 1.648721
    ],
)
def test_value_worked_by_hand(log_weights, cap, loss):
    """Log-ratios 1 and -1, beta 0.5: log(1 + e^-1) = 0.313262, times the weight."""
    given = column(-1, -4, -2, -3, *log_weights)
    losses, chosen, rejected = wpo_loss(*given, beta=0.5, cap=cap)
    assert losses.item() == pytest.approx(loss, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)


def test_a_weight_scales_the_gradient_and_has_none():
    """Of DPO, - beta sigmoid(-1) = -0.134471, times e^-0.7."""
    given = [x.requires_grad_() for x in column(-1, -4, -2, -3, -0.2, -0.5)]
    wpo_loss(*given, beta=0.5).losses.sum().backward()
    assert given[0].grad.item() == pytest.approx(-0.066776, abs=1e-6)
    assert given[4].grad is None
    assert given[5].grad is None


def test_weights_are_the_policys_own_by_a_loop_over_tokens(build):
    policy = build("llama")
    objective = WPO(policy, torch.optim.AdamW, beta=0.3, cap=math.inf)
    ref, _ = by_loop(policy, PAIRS)
    moved(policy)
    log_weights = []
    for tokens in distributions(policy, PAIRS):
        each = [
            float(row[token]) - math.log(math.fsum(math.exp(2 * x) for x in row.tolist()))
            for token, row in tokens
        ]
        log_weights.append(sum(each) / len(each))
    sums, _ = by_loop(policy, PAIRS)
    for i, loss in enumerate(objective.losses(collate(PAIRS))[0].tolist()):
        margin = 0.3 * float(sums[2 * i] - ref[2 * i] - sums[2 * i + 1] + ref[2 * i + 1])
        weight = math.exp(log_weights[2 * i] + log_weights[2 * i + 1])
        assert loss == pytest.approx(weight * math.log1p(math.exp(-margin)), rel=1e-6)


def test_extreme_log_ratios_are_finite():
    far = torch.tensor([200.0, -200.0, 200.0, -200.0]).requires_grad_()
    zero = torch.zeros(4)
    losses = wpo_loss(far, -far, zero, zero, far, far, beta=1.0, cap=1.0).losses
    losses.sum().backward()
    assert_close(losses.detach(), torch.tensor([0.0, 0.0, 0.0, 0.0]))
    assert far.grad is not None
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"cap": 0.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"WPO needs {name} > 0.*model\.init_args\.{name}"):
        WPO(build("llama"), torch.optim.AdamW, **setting)
