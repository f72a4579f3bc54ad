"""Centring and scaling: whitening under a mask, and baselines within a prompt's group.

To whiten over ranks or micro-batches, gather first: these functions see only their arguments.
"""

import torch
from torch import Tensor

from alignlab.errors import ConfigError


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale the values under ``mask`` to variance 1 and, by default, mean 0.

    ``shift_mean=False`` keeps the mean, as in lm-human-preferences and TRL (rewards whose sign
    matters). The variance is the population's. Deviation: no epsilon is added to it, so the result
    does not depend on the unit of ``x``; values that are all equal count as having no spread.

    Args:
        x: Any shape.
        mask: Bool (or 0 and 1), the same shape; values outside never matter, NaN included.

    Returns:
        ``x`` whitened, 0 outside the mask.
    """
    mask = mask.bool()
    inside = x.masked_fill(~mask, 0)
    count = mask.sum().clamp(min=1)
    mean = inside.sum() / count
    centred = (x - mean).masked_fill(~mask, 0)
    whitened = centred / _spread((centred.square().sum() / count).sqrt(), inside.abs().amax())
    return whitened if shift_mean else (whitened + mean).masked_fill(~mask, 0)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    """Each reward minus the mean of the others of its group (RLOO, arXiv:2402.14740), ``[M]``.

    Args:
        rewards: ``[M]``.
        group: ``[M]`` long, which prompt each completion answers.

    Raises:
        ConfigError: A group of one, which has no others.
    """
    member, count = _members(rewards, group)
    if (count < 2).any():
        raise ConfigError("leave-one-out needs at least 2 completions a prompt, got 1.")
    total = rewards.new_zeros(len(count)).index_add(0, member, rewards)
    return rewards - ((total[member] - rewards) / (count - 1)[member])


def group_normalise(rewards: Tensor, group: Tensor, *, scale: bool = True) -> Tensor:
    """Each reward in standard deviations from its group's mean (GRPO, arXiv:2402.03300), ``[M]``.

    The deviation is the population's, without an epsilon; the paper does not specify it. Libraries
    that use the sample's differ by ``sqrt(K / (K - 1))``, and by the effect of their epsilon. A
    group whose rewards are all equal, such as a group of one, gets 0.

    Args:
        rewards: ``[M]``.
        group: ``[M]`` long, which prompt each completion answers.
        scale: Off leaves the rewards centred in their own unit (arXiv:2503.20783).
    """
    centred, spread = _centred(rewards, group)
    return centred / spread if scale else centred


def unequal(rewards: Tensor, group: Tensor) -> Tensor:
    """``[M]`` bool: whether the rewards of a completion's group differ, beyond rounding.

    Args:
        rewards: ``[M]``.
        group: ``[M]`` long, which prompt each completion answers.
    """
    return _centred(rewards, group)[1].isfinite()


def _centred(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """``[M]`` rewards minus their group's mean, and the group's deviation (``_spread``)."""
    member, count = _members(rewards, group)
    zeros = rewards.new_zeros(len(count))
    centred = rewards - (zeros.index_add(0, member, rewards) / count)[member]
    deviation = (zeros.index_add(0, member, centred.square()) / count).sqrt()
    largest = zeros.scatter_reduce(0, member, rewards.abs(), "amax")
    return centred, _spread(deviation, largest)[member]


def group_logsumexp(x: Tensor, group: Tensor) -> Tensor:
    """``log sum exp(x)`` over each completion's group, ``[M]``: equal within a group.

    Args:
        x: ``[M]``.
        group: ``[M]`` long, which prompt each completion answers.
    """
    member, count = _members(x, group)
    zeros = x.new_zeros(len(count))
    largest = zeros.scatter_reduce(0, member, x.detach(), "amax", include_self=False)
    total = zeros.index_add(0, member, (x - largest[member]).exp())
    return (largest + total.log())[member]


def _members(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Each completion's group as 0, 1, ... and the groups' sizes in the rewards' dtype."""
    _, member, count = group.unique(return_inverse=True, return_counts=True)
    return member, count.to(rewards.dtype)


def _spread(deviation: Tensor, largest: Tensor) -> Tensor:
    """A divisor: the deviation, or infinity where it is only the rounding of equal numbers."""
    rounding = 8 * torch.finfo(deviation.dtype).eps * largest
    return deviation.masked_fill(deviation <= rounding, torch.inf)
