"""Unlikelihood by hand: value, gradient, limits, and that the rejected completion is unlearned."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.objectives.unlikelihood import Unlikelihood, unlikelihood_loss


def test_value_worked_by_hand():
    """Chosen e^-1, rejected e^-4: 1 + 0.5 * (-4) = -1. Chosen e^-3, rejected e^-2: 3 - 1 = 2."""
    losses, chosen, rejected = unlikelihood_loss(
        torch.tensor([-1.0, -3.0]), torch.tensor([-4.0, -2.0]), alpha=0.5
    )
    assert losses.tolist() == [-1.0, 2.0]
    assert (chosen.tolist(), rejected.tolist()) == ([-1.0, -3.0], [-4.0, -2.0])


@pytest.mark.parametrize("alpha", [0.0, 0.05, 1.0])
def test_gradients_are_minus_one_and_alpha_however_likely_a_completion_is(alpha):
    chosen = torch.tensor([-1e-9, -3.0, -500.0], requires_grad=True)
    rejected = torch.tensor([-500.0, -3.0, -1e-9], requires_grad=True)
    loss = unlikelihood_loss(chosen, rejected, alpha=alpha)
    loss.losses.sum().backward()
    assert_close(chosen.grad, torch.full((3,), -1.0))
    assert_close(rejected.grad, torch.full((3,), alpha))
    assert not loss.chosen_rewards.requires_grad
    assert not loss.rejected_rewards.requires_grad


def test_with_alpha_zero_the_rejected_completion_does_not_matter():
    chosen = torch.tensor([-2.0])
    losses = [unlikelihood_loss(chosen, torch.tensor([x]), alpha=0.0).losses for x in (-1.0, -9.0)]
    assert [float(loss) for loss in losses] == [2.0, 2.0]


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan])
def test_alpha_out_of_range_names_its_key(build, alpha):
    with pytest.raises(ConfigError, match=rf"got {alpha}\. Set model\.init_args\.alpha"):
        Unlikelihood(build("llama"), torch.optim.AdamW, alpha=alpha)


def test_a_step_raises_the_chosen_and_lowers_the_rejected(build):
    """Completions of one prompt that share no token; sums of log-probs, not means."""
    policy = build("llama")
    batch = collate([PromptTree(0, "a", (1, 5), ((7, 8, 2), (9, 10, 11, 2)))])
    objective = Unlikelihood(policy, torch.optim.AdamW, alpha=0.5)
    before = policy(batch).logps.detach()
    losses, means = objective.losses(batch)
    assert_close(losses.detach(), (0.5 * before[1] - before[0])[None], rtol=0, atol=1e-12)
    assert_close(means["rewards/margins"], before[0] - before[1], rtol=0, atol=1e-12)
    losses.sum().backward()
    with torch.no_grad():
        for p in policy.parameters():
            p -= 1e-4 * p.grad
    after = policy(batch).logps.detach()
    assert after[0] > before[0]
    assert after[1] < before[1]
