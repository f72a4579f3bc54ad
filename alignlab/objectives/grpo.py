"""Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300, Eq. 3 and 4).

Rewards are standardised within a prompt's group, each token has PPO's clipped ratio, and the KL
penalty is a k3 estimate per token in the loss. As published its fixed point is not the optimum of
reward minus KL: the penalty's gradient lacks the credit for later tokens, and the deviation in the
denominator rescales each prompt's reward.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.functional import clip_fraction, clipped_surrogate, group_normalise, kl_k3
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward


def grpo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    ref_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    kl_coef: float | Tensor,
    normaliser: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Each completion's mean of clipped surrogate and k3 penalty, as (sum, count) of completions.

    Args:
        token_logps: ``[M, T]`` nats; cells outside the mask never matter.
        old_token_logps: ``[M, T]`` under the policy that sampled.
        ref_token_logps: ``[M, T]`` under the reference.
        advantages: ``[M, T]``, the same for all tokens of a completion as published.
        mask: ``[M, T]``, which cells are tokens.
        clip_epsilon: Range of a token's ratio.
        kl_coef: Weight of the penalty.
        normaliser: Tokens that a completion's sum is divided by; its own length when left out, as
            published. A constant treats all tokens alike (arXiv:2503.20783).
    """
    mask = mask.bool()
    losses = clipped_surrogate(
        token_logps, old_token_logps, advantages, mask, clip_epsilon=clip_epsilon
    )
    kl = kl_k3(token_logps.masked_fill(~mask, 0), ref_token_logps.masked_fill(~mask, 0))
    divisor = mask.sum(1).clamp(min=1) if normaliser is None else normaliser
    return ((losses + kl_coef * kl).sum(1) / divisor).sum(), mask.any(1).sum()


class GRPO(OnPolicyObjective):
    """Several completions a prompt, standardised rewards, and a KL penalty in the loss.

    Arguments that are not listed here: see ``OnPolicyObjective``.

    Args:
        clip_epsilon: How far a token's ratio may move before its gradient stops. The paper does
            not print its own; 0.2 is usual.
        scale_by_std: Divide a group's centred rewards by their deviation, as published. Without it
            (arXiv:2503.20783) hard and easy prompts weigh alike.
        normaliser: See ``grpo_loss``.
        kl_coef: Weight of the per-token penalty; its start, if there is a target.

    Raises:
        ConfigError: A clip range or normaliser that is not positive.
    """

    unit = "completions"
    min_samples = 2  # a reward is judged against others of its prompt

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        clip_epsilon: float,
        optimizer: OptimizerCallable,
        scale_by_std: bool = True,
        normaliser: float | None = None,
        kl_coef: float = 0.04,
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
        self.scale_by_std = scale_by_std
        self.normaliser = checked(self, "normaliser", normaliser, "> 0")

    def advantages(self, scored: Scored) -> RolloutBatch:
        """Standardised rewards, the same for every token of a completion."""
        group = scored.trees.group
        return self.rollout_batch(
            scored, group_normalise(scored.scores, group, scale=self.scale_by_std)
        )

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Clipped surrogate and penalty."""
        assert batch.ref_token_logps is not None
        mask, ratios = batch.trees.loss_mask, (scores.token_logps, batch.old_token_logps)
        total, count = grpo_loss(
            *ratios,
            batch.ref_token_logps,
            batch.advantages,
            mask,
            clip_epsilon=self.clip_epsilon,
            kl_coef=self.kl_coef,
            normaliser=self.normaliser,
        )
        clipped = clip_fraction(*ratios, mask, clip_epsilon=self.clip_epsilon)
        tokens = mask.sum()
        return total, {
            "policy_loss": total / count,
            "clip_fraction": mean_of(clipped.double() * tokens, tokens),
        }
