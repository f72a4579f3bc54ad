"""Returns and advantages over the tokens of a completion.

Tensors are ``[M, T]``, a row per completion. Only positions under ``mask`` are steps: the step
after a position is the next one under the mask, so a completion with several trained spans is one
episode. The last step does not bootstrap (the text ended there). Values outside the mask never
matter, NaN included, and results are 0 there.
"""

import torch
from torch import Tensor

from alignlab.errors import ConfigError


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates (Schulman et al. 2015, arXiv:1506.02438, Eq. 16).

    Args:
        rewards: Reward of each step.
        values: Value before each step.
        mask: Bool (or 0 and 1), which positions are steps.
        discount: Of the next step's value; 1 in language tasks.
        gae_lambda: 1 gives return minus value, 0 the one-step error; ``[M]`` for one of each row.

    Returns:
        ``(advantages, returns)``; returns are ``advantages + values``, the value's target.
    """
    mask = mask.bool()
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    advantages = torch.zeros_like(rewards + values)
    next_value = next_advantage = torch.zeros_like(advantages[:, 0])
    for t in reversed(range(mask.shape[1])):
        error = rewards[:, t] + discount * next_value - values[:, t]
        advantage = error + discount * gae_lambda * next_advantage
        advantages[:, t] = torch.where(mask[:, t], advantage, 0)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
    return advantages, advantages + values


def length_adaptive_lambda(mask: Tensor, *, alpha: float) -> Tensor:
    """``[M]`` lambda of GAE that grows with a row's steps: ``1 - 1 / (alpha * steps)``.

    As in VAPO (Yue et al. 2025, arXiv:2504.05118, section 4.2), where the sum of lambda's powers
    is ``alpha * steps``. Below ``1 / alpha`` steps the formula is negative: lambda is 0 there.
    """
    return (1 - 1 / (alpha * mask.sum(1).double())).clamp(min=0)


def rewards_to_go(rewards: Tensor, mask: Tensor, *, discount: float) -> Tensor:
    """Discounted sum of a step's own and all later rewards, ``[M, T]``."""
    return gae(rewards, torch.zeros_like(rewards), mask, discount=discount, gae_lambda=1.0)[1]


def n_step_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, n: int
) -> tuple[Tensor, Tensor]:
    """Advantages from n rewards and the value after them (Mnih et al. 2016, arXiv:1602.01783).

    ``r_t + ... + discount^(n-1) r_{t+n-1} + discount^n V_{t+n} - V_t``; where the completion ends
    sooner, its whole return is taken. Arguments and results as in ``gae``.

    Raises:
        ConfigError: n below 1.
    """
    if n < 1:
        raise ConfigError(f"n-step advantages need n >= 1, got {n}.")
    mask = mask.bool()
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    order = (~mask).sort(dim=1, stable=True).indices  # a row's steps first, in their order
    step_rewards, returns = rewards.gather(1, order), values.gather(1, order)
    for _ in range(min(n, mask.shape[1])):
        after = torch.cat([returns[:, 1:], torch.zeros_like(returns[:, :1])], dim=1)
        returns = step_rewards + discount * after
    returns = torch.zeros_like(returns).scatter(1, order, returns).masked_fill(~mask, 0)
    return returns - values, returns
