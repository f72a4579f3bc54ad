"""DPO's loss by hand, by identity, by gradient."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.objectives.dpo import DPO, dpo_loss


def random_logps(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-10 * torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_value_worked_by_hand():
    """Margin = 0.5 * ((-1 + 2) - (-4 + 3)) = 1, so the loss is log(1 + e^-1) = 0.313262."""
    pair = (torch.tensor([x]) for x in (-1.0, -4.0, -2.0, -3.0))
    losses, chosen, rejected = dpo_loss(*pair, beta=0.5)
    assert_close(losses, torch.tensor([0.313262]), atol=1e-6, rtol=0)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_untrained_policy_costs_log_two(beta):
    chosen, rejected, *_ = random_logps(0)
    losses = dpo_loss(chosen, rejected, chosen, rejected, beta=beta).losses
    assert_close(losses, torch.full_like(losses, math.log(2)))


def test_gradient_is_beta_times_the_chance_of_being_wrong():
    """Section 4 of the paper: the weight is sigmoid(reward of rejected - reward of chosen)."""
    pc, pr, rc, rr = random_logps(1)
    dpo_loss(pc.requires_grad_(), pr.requires_grad_(), rc, rr, beta=0.3).losses.sum().backward()
    wrong = [
        1 / (1 + math.exp(0.3 * (a - c - b + d)))
        for a, b, c, d in zip(pc.tolist(), pr.tolist(), rc.tolist(), rr.tolist(), strict=True)
    ]
    expected = -0.3 * torch.tensor(wrong, dtype=torch.float64)
    assert_close(pc.grad, expected)
    assert_close(pr.grad, -expected)


def test_smoothing_mixes_in_flipped_labels():
    """The margin of 1 above, flipped one time in five: 0.8 * 0.313262 + 0.2 * 1.313262."""
    pair = (torch.tensor([x]) for x in (-1.0, -4.0, -2.0, -3.0))
    losses = dpo_loss(*pair, beta=0.5, label_smoothing=0.2).losses
    assert_close(losses, torch.tensor([0.513262]), atol=1e-6, rtol=0)


def test_huge_margins_stay_finite():
    far = torch.tensor([1e4, -1e4])
    losses = dpo_loss(far, -far, torch.zeros(2), torch.zeros(2), beta=1.0).losses
    assert_close(losses, torch.tensor([0.0, 2e4]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1.0}, r"beta > 0, got -1\.0\. Set model\.init_args\.beta"),
        ({"label_smoothing": 0.5}, r"label_smoothing in \[0, 0\.5\), got 0\.5"),
        ({"reference": "cached"}, r"model\.init_args\.reference_cache"),
        ({"reference": "cached", "reference_cache": ""}, r"model\.init_args\.reference_cache"),
    ],
)
def test_impossible_settings_name_their_key(build, settings, message):
    with pytest.raises(ConfigError, match=message):
        DPO(build("llama"), torch.optim.AdamW, **settings)
