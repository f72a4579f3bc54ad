"""REINFORCE++ with a baseline (Hu et al. 2025, arXiv:2501.03262): whitened over the whole phase.

The last token gets the completion's reward minus its group's mean, each token pays its KL penalty,
and the returns of all tokens of a phase are whitened together. Unlike GRPO's deviation per group,
this scale is the same for all prompts, so it changes the size of the gradient, not its direction.
"""

from dataclasses import replace
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.functional import (
    clip_fraction,
    clipped_surrogate,
    group_normalise,
    rewards_to_go,
    whiten,
)
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward


def reinforce_pp_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate as (sum, count) over the tokens under the mask.

    All tensors are ``[M, T]``; cells outside the mask never matter. ``advantages`` are those of
    ``whitened_returns``.
    """
    losses = clipped_surrogate(
        token_logps, old_token_logps, advantages, mask,
        clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,
    )  # fmt: skip
    return losses.sum(), mask.sum()


class REINFORCEPlusPlus(OnPolicyObjective):
    """Several completions a prompt, their mean as the baseline, advantages whitened over a phase.

    The KL penalty (k1) is in the reward of each token and part of the returns that are whitened, so
    ``kl_coef`` is in the reward's unit. The mean of a group of K includes the completion's own
    reward, which shrinks the reward's part of the gradient, but not the penalty's, by (K - 1) / K.
    So the fixed point is the optimum for ``kl_coef * K / (K - 1)``. Other arguments: see
    ``OnPolicyObjective``.

    Args:
        clip_epsilon: How far a token's ratio may move before its gradient stops.
        clip_epsilon_high: The same for a token that becomes likelier; ``clip_epsilon`` when left
            out.

    Raises:
        ConfigError: A clip range that is not positive.
    """

    min_samples = 2

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        clip_epsilon: float = 0.2,
        clip_epsilon_high: float | None = None,
        kl_coef: float = 0.05,
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

    def advantages(self, scored: Scored) -> RolloutBatch:
        """Rewards-to-go of centred rewards and penalties, whitened over all tokens of the phase."""
        centred = group_normalise(scored.scores, scored.trees.group, scale=False)
        rewards, mask = self.token_rewards(replace(scored, scores=centred)), scored.trees.loss_mask
        return self.rollout_batch(scored, whiten(rewards_to_go(rewards, mask, discount=1.0), mask))

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Clipped surrogate."""
        mask, ratios = batch.trees.loss_mask, (scores.token_logps, batch.old_token_logps)
        clip: dict[str, Any] = {
            "clip_epsilon": self.clip_epsilon,
            "clip_epsilon_high": self.clip_epsilon_high,
        }
        total, count = reinforce_pp_loss(*ratios, batch.advantages, mask, **clip)
        clipped = clip_fraction(*ratios, mask, **clip)
        return total, {
            "policy_loss": mean_of(total, count),
            "clip_fraction": mean_of(clipped.double() * count, count),
        }
