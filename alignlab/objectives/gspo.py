"""Group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071, Eq. 5 to 7).

GRPO with one clipped ratio per completion: the geometric mean of its tokens' ratios.
In a phase's first step all ratios are 1, and the gradient is GRPO's; it differs on stale samples.
"""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.functional import clip_fraction, clipped_surrogate
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import GroupObjective, Sampling
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward


def gspo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``-min(s * A, clip(s) * A)`` of completions, ``s = (pi / pi_old)^(1/|y|)``, as (sum, count).

    Args:
        token_logps: ``[M, T]`` nats; cells outside the mask never matter.
        old_token_logps: ``[M, T]`` under the policy that sampled.
        advantages: ``[M]``, one for a completion.
        mask: ``[M, T]``, which cells are tokens.
        clip_epsilon: Range of ``s`` below 1, and above it unless ``clip_epsilon_high`` is given.
        clip_epsilon_high: Range above 1.
    """
    any_token = mask.bool().any(1, keepdim=True)
    means = mean_logps(token_logps, mask), mean_logps(old_token_logps, mask)
    losses = clipped_surrogate(
        *means, advantages[:, None], any_token,
        clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,
    )  # fmt: skip
    return losses.sum(), any_token.sum()


def mean_logps(token_logps: Tensor, mask: Tensor) -> Tensor:
    """``[M, 1]`` mean log-prob of a completion's tokens, 0 without any."""
    mask = mask.bool()
    lengths = mask.sum(1, keepdim=True).clamp(min=1)
    return token_logps.masked_fill(~mask, 0).sum(1, keepdim=True) / lengths


class GSPO(GroupObjective):
    """Several completions a prompt, standardised rewards, and a clipped ratio per completion.

    The paper has no KL penalty (``kl_coef`` 0). Here it is k1 of the completion, subtracted from
    the reward before standardising. Arguments not listed: see ``OnPolicyObjective``.

    Args:
        clip_epsilon: How far a completion's ratio ``s`` may fall before its gradient stops. ``s``
            is a mean over tokens, so ranges are far smaller than a token's.
        clip_epsilon_high: The same above 1; ``None`` is ``clip_epsilon``.
        scale_by_std: Divide a group's centred rewards by their deviation, as published.
        kl_coef: Strength of the penalty, in the reward's unit; its start, if there is a target.

    Raises:
        ConfigError: A clip range that is not positive.
    """

    unit = "completions"

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        clip_epsilon: float = 3e-4,
        clip_epsilon_high: float | None = 4e-4,
        scale_by_std: bool = True,
        kl_coef: float = 0.0,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            policy, reward, sampling, optimizer, kl_coef, kl_target, kl_horizon, reference, seed,
            schedule,
        )  # fmt: skip
        self.clip_epsilon = checked(self, "clip_epsilon", clip_epsilon, "> 0")
        self.clip_epsilon_high = checked(self, "clip_epsilon_high", clip_epsilon_high, "> 0")
        self.scale_by_std = scale_by_std

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Clipped surrogate, and the share of completions out of the range."""
        mask = batch.trees.loss_mask
        clip: dict[str, Any] = {
            "clip_epsilon": self.clip_epsilon,
            "clip_epsilon_high": self.clip_epsilon_high,
        }
        ratios = scores.token_logps, batch.old_token_logps
        total, count = gspo_loss(*ratios, batch.advantages[:, 0], mask, **clip)
        means = [mean_logps(logps, mask) for logps in ratios]
        clipped = clip_fraction(means[0], means[1], mask.any(1, keepdim=True), **clip)
        return total, {
            "policy_loss": mean_of(total, count),
            "clip_fraction": mean_of(clipped.double() * count, count),
        }
