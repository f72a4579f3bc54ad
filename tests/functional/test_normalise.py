import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.functional import (
    group_logsumexp,
    group_normalise,
    leave_one_out,
    unequal,
    whiten,
)


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = 3.0 + torch.rand(5, 6, generator=g, dtype=torch.float64)  # the mean is far from 0
    mask = torch.rand(5, 6, generator=g) < 0.7
    return x, mask


def test_whiten_worked_by_hand() -> None:
    """2, 4 and 6 under the mask: mean 4, variance 8/3, so -2 becomes -sqrt(3/2)."""
    x, mask = torch.tensor([2.0, 99.0, 4.0, 6.0]), torch.tensor([True, False, True, True])
    assert_close(whiten(x, mask), torch.tensor([-1.224745, 0.0, 0.0, 1.224745]))
    kept = torch.tensor([2.775255, 0.0, 4.0, 5.224745])
    assert_close(whiten(x, mask, shift_mean=False), kept)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_variance_is_one_and_the_mean_goes_or_stays(scale: float) -> None:
    x, mask = sample()
    for shift_mean in (True, False):
        inside = whiten(scale * x, mask, shift_mean=shift_mean)[mask]
        assert_close(inside.var(correction=0).item(), 1.0)
        mean = 0.0 if shift_mean else (scale * x[mask]).mean().item()
        assert_close(inside.mean().item(), mean, atol=1e-8, rtol=1e-12)


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e6])
def test_values_outside_the_mask_never_matter(garbage: float) -> None:
    x, mask = sample()
    for shift_mean in (True, False):
        dirty = whiten(x.masked_fill(~mask, garbage), mask, shift_mean=shift_mean)
        assert_close(dirty, whiten(x, mask, shift_mean=shift_mean))
        assert (dirty[~mask] == 0).all()


def test_equal_values_and_an_empty_mask_give_numbers() -> None:
    mask = torch.tensor([True] * 10)
    equal = torch.full((10,), 0.1)
    assert_close(whiten(equal, mask), torch.zeros(10))
    assert_close(whiten(equal, mask, shift_mean=False), equal)
    assert_close(whiten(equal, ~mask), torch.zeros(10))


def test_leave_one_out_worked_by_hand() -> None:
    """Group 7 holds 1, 2 and 6: 1 - (2 + 6) / 2 = -3; group 2 holds 4 and 5."""
    rewards = torch.tensor([1.0, 4.0, 2.0, 5.0, 6.0])
    group = torch.tensor([7, 2, 7, 2, 7])
    assert_close(leave_one_out(rewards, group), torch.tensor([-3.0, -1.0, -1.5, 1.0, 4.5]))


def test_leave_one_out_needs_another() -> None:
    with pytest.raises(ConfigError, match="at least 2 completions"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))


def test_group_normalise_worked_by_hand() -> None:
    """1 and 3 lie one deviation from 2; 0, 0, 0, 4 has mean 1 and deviation sqrt(3)."""
    rewards = torch.tensor([1.0, 3.0, 0.0, 0.0, 0.0, 4.0])
    group = torch.tensor([0, 0, 1, 1, 1, 1])
    low, high = -0.577350, 1.732051
    assert_close(group_normalise(rewards, group), torch.tensor([-1.0, 1.0, low, low, low, high]))


def test_groups_of_equal_rewards_get_zero() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1, 5.0, 1e-9, 3e-9])
    group = torch.tensor([0, 0, 0, 1, 2, 2])
    assert_close(group_normalise(rewards, group), torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0, 1.0]))


def test_groups_of_equal_rewards_are_found() -> None:
    """Also where rounding alone makes them differ; a small difference is one."""
    rewards = torch.tensor([0.1, 0.1, 0.1, 5.0, 1e-9, 3e-9, 0.3, 0.1 + 0.2])
    group = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3])
    assert unequal(rewards, group).tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_a_group_does_not_see_the_others() -> None:
    g = torch.Generator().manual_seed(1)
    rewards = torch.randn(12, generator=g, dtype=torch.float64)
    group = torch.arange(12) % 3
    for function in (leave_one_out, group_normalise):
        together = function(rewards, group)
        for one in range(3):
            alone = rewards[group == one]
            assert_close(together[group == one], function(alone, torch.zeros(4).long()))


def test_group_logsumexp_worked_by_hand() -> None:
    """Group 7 holds the logs of 1, 2 and 5, which are 8 together; group 2 two times 1000."""
    x = torch.tensor([1.0, 0.0, 2.0, 5.0, 0.0]).log()
    x[torch.tensor([1, 4])] = torch.tensor([1000.0, 1000.0])
    group = torch.tensor([7, 2, 7, 7, 2])
    x.requires_grad_()
    found = group_logsumexp(x, group)
    big = 1000 + math.log(2)
    assert_close(found, torch.tensor([math.log(8), big, math.log(8), math.log(8), big]))
    found[0].backward()
    assert_close(x.grad, torch.tensor([1 / 8, 0.0, 2 / 8, 5 / 8, 0.0]))
