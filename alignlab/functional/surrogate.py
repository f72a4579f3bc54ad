"""PPO's clipped losses per token (Schulman et al. 2017, arXiv:1707.06347).

Tensors are ``[M, T]``. Losses and gradients are 0 outside the mask, whatever the values there.
"""

import math

import torch
from torch import Tensor


def clipped_surrogate(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
) -> Tensor:
    """``-min(ratio * A, clip(ratio, 1 - eps, 1 + eps_high) * A)`` per token (Eq. 7), minimised.

    ``clip_epsilon_high`` is ``clip_epsilon`` when left out, as published; a larger one lets good
    tokens rise further than bad ones fall (DAPO, arXiv:2503.14476). ``old_token_logps`` are those
    of the policy that sampled, not of the reference. A good token's log-ratio is clipped from above
    and a bad one's from below, before the exponential: above 88 that is infinite in float32, and
    its gradient behind a clip would be NaN instead of 0.
    """
    mask = mask.bool()
    log_ratio = token_logps.masked_fill(~mask, 0) - old_token_logps.masked_fill(~mask, 0)
    advantages = advantages.masked_fill(~mask, 0)
    low = math.log1p(-clip_epsilon) if clip_epsilon < 1 else -math.inf
    high = math.log1p(clip_epsilon if clip_epsilon_high is None else clip_epsilon_high)
    held = torch.where(advantages < 0, log_ratio.clamp(min=low), log_ratio.clamp(max=high))
    return -(held.exp() * advantages)


def clip_fraction(
    token_logps: Tensor,
    old_token_logps: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
) -> Tensor:
    """Share of the tokens under the mask whose ratio has left ``1 - eps`` to ``1 + eps_high``."""
    moved = (token_logps.detach() - old_token_logps)[mask.bool()].exp() - 1
    high = clip_epsilon if clip_epsilon_high is None else clip_epsilon_high
    outside = (moved < -clip_epsilon) | (moved > high)
    return outside.to(moved).sum() / max(1, len(moved))


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    value_clip_epsilon: float,
) -> Tensor:
    """Half the larger squared error of the value and of the value clipped to near its old one.

    As in lm-human-preferences: ``max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / 2``.
    An infinite ``value_clip_epsilon`` does not clip.
    """
    mask = mask.bool()
    values, old_values = values.masked_fill(~mask, 0), old_values.masked_fill(~mask, 0)
    returns = returns.masked_fill(~mask, 0)
    moved = (values - old_values).clamp(-value_clip_epsilon, value_clip_epsilon)
    errors = torch.maximum((values - returns).square(), (old_values + moved - returns).square())
    return errors / 2
