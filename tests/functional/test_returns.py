from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.functional import (
    gae,
    length_adaptive_lambda,
    n_step_advantages,
    rewards_to_go,
)

DISCOUNT, GAE_LAMBDA = 0.9, 0.7


def ragged(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and a mask with short rows, gaps, a full row and an empty one."""
    g = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 6, 7, generator=g, dtype=torch.float64)
    mask = torch.rand(6, 7, generator=g) < 0.6
    mask[0], mask[1] = True, False
    mask[2] = torch.arange(7) < 1
    return rewards, values, mask


def by_loops(episode: Callable[[list[float], list[float]], list[float]]) -> Tensor:
    """Advantages that ``episode`` computes from each row's steps alone, 0 elsewhere."""
    rewards, values, mask = ragged()
    out = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        steps = [t for t in range(mask.shape[1]) if mask[row, t]]
        r, v = [rewards[row, t].item() for t in steps], [values[row, t].item() for t in steps]
        for t, value in zip(steps, episode(r, v), strict=True):
            out[row, t] = value
    return out


def gae_by_double_sum(r: list[float], v: list[float]) -> list[float]:
    v_next = [*v[1:], 0.0]
    return [
        sum(
            (DISCOUNT * GAE_LAMBDA) ** (k - t) * (r[k] + DISCOUNT * v_next[k] - v[k])
            for k in range(t, len(r))
        )
        for t in range(len(r))
    ]


def n_step_by_sum(n: int) -> Callable[[list[float], list[float]], list[float]]:
    def episode(r: list[float], v: list[float]) -> list[float]:
        out = []
        for t in range(len(r)):
            stop = min(t + n, len(r))
            total = sum(DISCOUNT ** (k - t) * r[k] for k in range(t, stop))
            after = DISCOUNT**n * v[t + n] if t + n < len(r) else 0.0
            out.append(total + after - v[t])
        return out

    return episode


def test_gae_worked_by_hand() -> None:
    """Errors: 1 + 0.5 * 4 - 2 = 1 and 3 - 4 = -1; advantages 1 + 0.25 * -1 = 0.75 and -1."""
    rewards, values = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 4.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages, returns = gae(rewards, values, mask, discount=0.5, gae_lambda=0.5)
    assert_close(advantages, torch.tensor([[0.75, -1.0]]))
    assert_close(returns, torch.tensor([[2.75, 3.0]]))


def test_gae_equals_the_double_sum() -> None:
    rewards, values, mask = ragged()
    advantages, returns = gae(rewards, values, mask, discount=DISCOUNT, gae_lambda=GAE_LAMBDA)
    expected = by_loops(gae_by_double_sum)
    assert_close(advantages, expected, atol=1e-12, rtol=0)
    assert_close(returns, (expected + values) * mask, atol=1e-12, rtol=0)


def test_lambda_one_is_return_minus_value_and_nothing_ahead_is_reward_minus_value() -> None:
    rewards, values, mask = ragged()
    whole, _ = gae(rewards, values, mask, discount=DISCOUNT, gae_lambda=1.0)
    to_go = rewards_to_go(rewards, mask, discount=DISCOUNT)
    assert_close(whole, (to_go - values) * mask)
    now, _ = gae(rewards, values, mask, discount=0.0, gae_lambda=0.0)
    assert_close(now, (rewards - values) * mask)


def test_each_row_may_have_a_lambda_of_its_own() -> None:
    rewards, values, mask = ragged()
    each = torch.linspace(0, 1, len(mask), dtype=torch.float64)
    together = gae(rewards, values, mask, discount=DISCOUNT, gae_lambda=each)
    for row, gae_lambda in enumerate(each.tolist()):
        one = slice(row, row + 1)
        alone = gae(rewards[one], values[one], mask[one], discount=DISCOUNT, gae_lambda=gae_lambda)
        assert_close([x[one] for x in together], list(alone), atol=1e-12, rtol=0)


def test_a_lambda_by_length_worked_by_hand() -> None:
    """1 - 1 / (0.1 * 40) = 0.75, of 20 steps 0.5; 10 give 0, and so do 5 (not -1) and none."""
    mask = torch.arange(40) < torch.tensor([[40], [20], [10], [5], [0]])
    found = length_adaptive_lambda(mask, alpha=0.1)
    assert_close(found, torch.tensor([0.75, 0.5, 0, 0, 0], dtype=torch.float64))


def test_rewards_to_go_worked_by_hand() -> None:
    """The masked 100 is skipped: 1 + 0.5 * 2 + 0.25 * 4 = 3, then 2 + 0.5 * 4 = 4, then 4."""
    rewards = torch.tensor([[1.0, 100.0, 2.0, 4.0, 100.0]])
    mask = torch.tensor([[1, 0, 1, 1, 0]])
    expected = torch.tensor([[3.0, 0.0, 4.0, 4.0, 0.0]])
    assert_close(rewards_to_go(rewards, mask, discount=0.5), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_n_step_equals_the_sum(n: int) -> None:
    rewards, values, mask = ragged()
    advantages, returns = n_step_advantages(rewards, values, mask, discount=DISCOUNT, n=n)
    expected = by_loops(n_step_by_sum(n))
    assert_close(advantages, expected, atol=1e-12, rtol=0)
    assert_close(returns, (expected + values) * mask, atol=1e-12, rtol=0)


def test_one_step_is_gae_without_lambda_and_all_steps_gae_with_one() -> None:
    rewards, values, mask = ragged()
    for n, gae_lambda in ((1, 0.0), (7, 1.0)):
        ours = n_step_advantages(rewards, values, mask, discount=DISCOUNT, n=n)
        assert_close(ours, gae(rewards, values, mask, discount=DISCOUNT, gae_lambda=gae_lambda))


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, 1e6])
def test_values_outside_the_mask_never_matter(garbage: float) -> None:
    rewards, values, mask = ragged()
    dirty = rewards.masked_fill(~mask, garbage), values.masked_fill(~mask, garbage), mask
    assert_close(
        gae(*dirty, discount=DISCOUNT, gae_lambda=GAE_LAMBDA),
        gae(rewards, values, mask, discount=DISCOUNT, gae_lambda=GAE_LAMBDA),
    )
    assert_close(
        n_step_advantages(*dirty, discount=DISCOUNT, n=2),
        n_step_advantages(rewards, values, mask, discount=DISCOUNT, n=2),
    )
    assert_close(
        rewards_to_go(dirty[0], mask, discount=DISCOUNT),
        rewards_to_go(rewards, mask, discount=DISCOUNT),
    )


def test_no_steps_at_all_is_refused() -> None:
    rewards, values, mask = ragged()
    with pytest.raises(ConfigError, match="n >= 1, got 0"):
        n_step_advantages(rewards, values, mask, discount=1.0, n=0)
