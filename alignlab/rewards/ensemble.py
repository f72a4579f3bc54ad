"""Several rewards as one, which is lower where they disagree."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.errors import ConfigError
from alignlab.rewards.base import Reward, checked_rewards


def soft_minimum(scores: Tensor, beta: float) -> Tensor:
    """``-beta * log mean exp(-scores / beta)`` over the first dimension, ``[K, N]`` -> ``[N]``.

    It increases with ``beta``, from the least of the K scores (``beta`` 0) to their mean
    (infinity). For a large ``beta`` it is the mean minus the variance over ``2 * beta``, up to
    terms in ``1 / beta^2``. So it covers the penalised mean and the worst case of Coste et al. 2023
    (arXiv:2310.02743) in one formula. Terms are taken relative to the least score, so nothing
    overflows, and by ``expm1`` and ``log1p``, so nothing cancels for a large ``beta``.
    """
    if math.isinf(beta):
        return scores.mean(0)
    least = scores.amin(0)
    if not beta:
        return least
    return least - beta * torch.expm1((least - scores) / beta).mean(0).log1p()


class Ensemble(Reward):
    """``-beta * log mean exp(-r / beta)`` of the members' scores ``r`` (``soft_minimum``).

    A policy exploits errors of its reward. Members that were trained with different seeds make
    different errors, so the reward is lower than their mean where their scores differ. A natural
    ``beta`` is the policy's own ``kl_coef`` (arXiv:2606.09073).

    Args:
        members: Rewards on one scale: what they score is compared and averaged as it is.
        beta: In the unit of the scores. ``inf`` is their mean, 0 the worst case.

    Raises:
        ConfigError: No members, or a negative ``beta``.
    """

    def __init__(self, members: list[Reward], beta: float = math.inf) -> None:
        if not members or not beta >= 0:
            raise ConfigError(
                f"Ensemble needs members and beta >= 0 (.inf for their mean), got {len(members)} "
                f"members and beta {beta}. Set both in the reward's init_args."
            )
        self.members, self.beta = members, beta

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 scores.

        Raises:
            DataError: The scores of a member are not N finite numbers.
        """
        scores = [checked_rewards(member, prompts, completions) for member in self.members]
        return soft_minimum(torch.stack(scores), self.beta)
