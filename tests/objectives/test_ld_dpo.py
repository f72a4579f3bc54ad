"""LD-DPO by hand; which tokens lie beyond the shorter completion, by a loop over tokens."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.ld_dpo import LDDPO, ld_dpo_loss
from tests.objectives.direct import PAIRS, column, moved, random_logps, tokens_by_loop


def test_value_worked_by_hand():
    """Log-ratios 1, of which 0.6 beyond, and -1: 1 - 0.75 * 0.6 = 0.55, and 2 * 1.55 = 3.1."""
    losses, chosen, rejected = ld_dpo_loss(*column(-1, -4, -2, -3, 0.6, 0), beta=2.0, alpha=0.25)
    assert losses.item() == pytest.approx(0.044064, abs=1e-6)
    assert chosen.item() == pytest.approx(1.1)
    assert rejected.item() == -2.0


def test_with_alpha_1_it_is_dpo():
    logps, tails = random_logps(0), random_logps(1, 2)
    ours = ld_dpo_loss(*logps, *tails, beta=0.3, alpha=1.0)
    for mine, dpos in zip(ours, dpo_loss(*logps, beta=0.3), strict=True):
        assert_close(mine, dpos)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_first_tokens_count_whole_and_the_rest_by_alpha(build, alpha):
    """Of policy and reference, in tokens that count: of the second pair one in between does not."""
    policy = build("llama")
    objective = LDDPO(policy, torch.optim.AdamW, beta=0.3, alpha=alpha)
    ref = tokens_by_loop(policy, PAIRS)
    now = tokens_by_loop(moved(policy), PAIRS)
    assert [len(each) for each in now] == [3, 1, 2, 3, 2, 2]
    for i, loss in enumerate(objective.losses(collate(PAIRS))[0].tolist()):
        shorter = min(len(now[2 * i]), len(now[2 * i + 1]))
        rewards = [
            sum(
                (mine - theirs) * (1 if t < shorter else alpha)
                for t, (mine, theirs) in enumerate(zip(now[m], ref[m], strict=True))
            )
            for m in (2 * i, 2 * i + 1)
        ]
        expected = math.log1p(math.exp(-0.3 * (rewards[0] - rewards[1])))
        assert loss == pytest.approx(expected, rel=1e-6)


def test_before_training_the_loss_is_log_2(build):
    """The reference is discounted too; if it were not, the loss would depend on lengths."""
    objective = LDDPO(build("llama"), torch.optim.AdamW, alpha=0.0)
    assert objective.losses(collate(PAIRS))[0].tolist() == pytest.approx([math.log(2)] * 3)


def test_extreme_log_ratios_are_finite():
    far, zero = torch.tensor([200.0, -200.0]).requires_grad_(), torch.zeros(2)
    losses = ld_dpo_loss(far, -far, zero, zero, -far, zero, beta=1.0, alpha=0.0).losses
    losses.sum().backward()
    assert losses.isfinite().all()
    assert far.grad is not None
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_an_alpha_outside_of_its_range_names_its_key(build, alpha):
    with pytest.raises(ConfigError, match=r"LDDPO needs alpha in \[0, 1\].*init_args\.alpha"):
        LDDPO(build("llama"), torch.optim.AdamW, alpha=alpha)
