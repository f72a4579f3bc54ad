"""Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300, Eq. 3 and 4).

Rewards are standardised within a prompt's group, each token has PPO's clipped ratio, and the KL
penalty is a k3 estimate per token in the loss. As published, its fixed point is not the optimum of
reward minus KL: the penalty's gradient lacks the credit for later tokens, and the deviation in the
denominator rescales each prompt's reward. With the penalty in the reward (``kl_in``) it is. DAPO
(arXiv:2503.14476) and Dr. GRPO (arXiv:2503.20783) are settings: ``dapo.yaml``, ``dr_grpo.yaml``.
"""

from typing import Any, Literal, get_args

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.errors import ConfigError
from alignlab.functional import clip_fraction, clipped_surrogate, kl_k3
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import GroupObjective, Sampling
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward

Normaliser = float | Literal["tokens"] | None
KLIn = Literal["reward", "loss", "weighted_loss"]


def grpo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    ref_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    kl_coef: float | Tensor,
    clip_epsilon_high: float | None = None,
    normaliser: Normaliser = None,
    weighted_kl: bool = False,
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
        clip_epsilon_high: Range above 1, if it is another one (see ``clipped_surrogate``).
        normaliser: Tokens that a completion's sum is divided by; its own length when left out, as
            published. A constant treats all tokens alike (arXiv:2503.20783). ``tokens``: sum and
            count are over tokens instead of completions (arXiv:2503.14476).
        weighted_kl: Multiply each token's penalty by its ratio, which has a gradient too.
    """
    mask = mask.bool()
    losses = clipped_surrogate(
        token_logps, old_token_logps, advantages, mask,
        clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,
    )  # fmt: skip
    if isinstance(kl_coef, Tensor) or kl_coef:
        now, ref = token_logps.masked_fill(~mask, 0), ref_token_logps.masked_fill(~mask, 0)
        kl = kl_k3(now, ref)
        if weighted_kl:
            kl = (now - old_token_logps.masked_fill(~mask, 0)).exp() * kl
        losses = losses + kl_coef * kl
    if normaliser == "tokens":
        return losses.sum(), mask.sum()
    divisor = mask.sum(1).clamp(min=1) if normaliser is None else normaliser
    return (losses.sum(1) / divisor).sum(), mask.any(1).sum()


class GRPO(GroupObjective):
    """Several completions a prompt, standardised rewards, and a KL penalty in the loss.

    Arguments that are not listed here: see ``OnPolicyObjective``.

    Args:
        clip_epsilon: How far a token's ratio may move before its gradient stops. The paper does
            not print its own; 0.2 is usual.
        clip_epsilon_high: The same for a token that becomes likelier; ``clip_epsilon`` when left
            out. DAPO has 0.28, with 0.2 below.
        scale_by_std: Divide a group's centred rewards by their deviation, as published. Without it
            (arXiv:2503.20783) hard and easy prompts weigh alike.
        normaliser: A number, or ``tokens`` for the mean over all tokens of a step; see
            ``grpo_loss``.
        kl_coef: Weight of the per-token penalty; its initial value, if there is a target.
        kl_in: ``loss``: k3 per token, as published. ``weighted_loss``: k3 times the token's ratio,
            so that its gradient is the one of the token's own divergence (TRL's
            ``use_bias_correction_kl``). ``reward``: k1 of the completion, before standardising;
            the only one that ends at the optimum, with ``kl_coef`` in the reward's unit.

    Raises:
        ConfigError: A clip range or normaliser that is not positive, or an unknown ``kl_in``.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        clip_epsilon: float,
        optimizer: OptimizerCallable,
        scale_by_std: bool = True,
        normaliser: Normaliser = None,
        kl_coef: float = 0.04,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
        clip_epsilon_high: float | None = None,
        kl_in: KLIn = "loss",
    ) -> None:
        super().__init__(
            policy, reward, sampling, optimizer, kl_coef, kl_target, kl_horizon, reference, seed,
            schedule,
        )  # fmt: skip
        if kl_in not in get_args(KLIn):
            known = ", ".join(get_args(KLIn))
            raise ConfigError(
                f"kl_in must be one of {known}, got {kl_in!r}. Set model.init_args.kl_in."
            )
        self.clip_epsilon = checked(self, "clip_epsilon", clip_epsilon, "> 0")
        self.clip_epsilon_high = checked(self, "clip_epsilon_high", clip_epsilon_high, "> 0")
        self.scale_by_std, self.normaliser, self.kl_in = scale_by_std, normaliser, kl_in
        self.unit = "tokens" if normaliser == "tokens" else "completions"
        if normaliser != "tokens":
            checked(self, "normaliser", normaliser, "> 0")

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Clipped surrogate and penalty."""
        assert batch.ref_token_logps is not None
        mask, ratios = batch.trees.loss_mask, (scores.token_logps, batch.old_token_logps)
        clip: dict[str, Any] = {
            "clip_epsilon": self.clip_epsilon,
            "clip_epsilon_high": self.clip_epsilon_high,
        }
        total, count = grpo_loss(
            *ratios,
            batch.ref_token_logps,
            batch.advantages,
            mask,
            **clip,
            kl_coef=0.0 if self.kl_in == "reward" else self.kl_coef,
            normaliser=self.normaliser,
            weighted_kl=self.kl_in == "weighted_loss",
        )
        clipped = clip_fraction(*ratios, mask, **clip)
        tokens = mask.sum()
        return total, {
            "policy_loss": mean_of(total, count),
            "clip_fraction": mean_of(clipped.double() * tokens, tokens),
        }
