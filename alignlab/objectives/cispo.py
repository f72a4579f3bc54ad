"""CISPO: importance weights are clipped, no token is (MiniMax 2025, arXiv:2506.13585, Eq. 4 and 5).

A token that became likelier than PPO's clip allows keeps its gradient, with a weight of at most
``weight_cap``. ScaleRL (arXiv:2510.13786) has a cap of 5.
"""

import math

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import GroupObjective, Sampling
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward


def cispo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    weight_cap: float,
) -> tuple[Tensor, Tensor]:
    """``-min(pi / pi_old, weight_cap) * A * log pi`` per token as (sum, count) over tokens.

    The weight has no gradient. All tensors are ``[M, T]``; cells outside the mask never matter.
    The cap is the largest weight itself, not its distance from 1.
    """
    mask = mask.bool()
    logps = token_logps.masked_fill(~mask, 0)
    log_ratio = logps.detach() - old_token_logps.masked_fill(~mask, 0)
    weights = log_ratio.clamp(max=math.log(weight_cap)).exp()  # first: e^89 is infinite in float32
    return -(weights * advantages.masked_fill(~mask, 0) * logps).sum(), mask.sum()


class CISPO(GroupObjective):
    """Several completions a prompt, standardised rewards, and a limited weight for each token.

    The paper has no KL penalty (``kl_coef`` 0). Here it is k1 of the completion, subtracted from
    the reward before standardising. Arguments not listed: see ``OnPolicyObjective``.

    Args:
        weight_cap: Largest importance weight of a token: ``epsilon_high`` in TRL and ScaleRL. The
            paper and NeMo-RL give its distance from 1, so their 5 is 6 here.
        scale_by_std: Divide a group's centred rewards by their deviation, as published.
        kl_coef: Strength of the penalty, in the reward's unit; its start, if there is a target.

    Raises:
        ConfigError: A cap that is not positive.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        weight_cap: float = 5.0,
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
        self.weight_cap = checked(self, "weight_cap", weight_cap, "> 0")
        self.scale_by_std = scale_by_std

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Weighted policy gradient, and the share of tokens at the cap."""
        mask = batch.trees.loss_mask
        total, count = cispo_loss(
            scores.token_logps,
            batch.old_token_logps,
            batch.advantages,
            mask,
            weight_cap=self.weight_cap,
        )
        log_ratio = (scores.token_logps.detach() - batch.old_token_logps)[mask]
        capped = (log_ratio > math.log(self.weight_cap)).sum()
        return total, {"policy_loss": mean_of(total, count), "capped": mean_of(capped, count)}
