"""Online DPO: pairs of the policy's own completions, labelled by a judge as it trains.

Guo et al. 2024 (OAIF, arXiv:2402.04792, Algorithm 1), with any reward as the judge. With
``sampled`` or ``soft`` labels the fixed point is the optimum of the KL-regularised reward. With
``argmax`` labels there is none: for any ``beta``, the policy drifts from the reference without end.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional import bradley_terry, uniform
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics, PairLoss, accuracy, split_pairs
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward

Labels = Literal["sampled", "soft", "argmax"]


def online_dpo_loss(
    policy_first_logps: Tensor,
    policy_second_logps: Tensor,
    ref_first_logps: Tensor,
    ref_second_logps: Tensor,
    preference: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """Cross-entropy of ``preference`` and the implicit ``sigmoid(r_first - r_second)``.

    ``r = beta * log(policy / reference)``. All inputs are ``[B]``: summed completion log-probs in
    nats, and the probability that the first is preferred, 0 or 1 for a plain label.
    """
    first = beta * (policy_first_logps - ref_first_logps)
    second = beta * (policy_second_logps - ref_second_logps)
    losses = preference * bradley_terry(first, second)
    losses = losses + (1 - preference) * bradley_terry(second, first)
    return PairLoss(losses, first.detach(), second.detach())


def label(first: Tensor, second: Tensor, noise: Tensor, *, labels: Labels, scale: float) -> Tensor:
    """The judge's preference for the first of each pair, from rewards ``[B]``.

    ``soft``: ``sigmoid(scale * (first - second))``; ``sampled``: 1 with that probability (where it
    exceeds ``noise``, uniform in (0, 1)), else 0; ``argmax``: 1 for the better one, 1/2 for a tie.
    """
    if labels == "argmax":
        return (1 + (first - second).sign()) / 2
    chance = (scale * (first - second)).sigmoid()
    return chance if labels == "soft" else (noise < chance).to(chance)


class OnlineDPO(OnPolicyObjective):
    """Fit a policy to preferences between pairs of its own completions.

    The data need ``samples_per_prompt`` 2. Arguments not listed: see ``OnPolicyObjective``.

    Args:
        reward: The judge's reward.
        labels: ``sampled`` by Bradley-Terry, ``soft`` (its probability; less noise, the same mean
            gradient), or ``argmax`` (the better one always wins).
        beta: Strength of the KL constraint, > 0. Smaller lets the policy drift further.
        scale: Factor on reward differences; larger means fewer labels against the reward.
    """

    unit = "prompts"

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        labels: Labels,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        scale: float = 1.0,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(  # no penalty in the reward: the constraint is in the loss
            policy, reward, sampling, optimizer, kl_coef=0.0, reference=reference, seed=seed,
            schedule=schedule,
        )  # fmt: skip
        if labels not in get_args(Labels):
            known = ", ".join(get_args(Labels))
            raise ConfigError(
                f"labels must be one of {known}, got {labels!r}. Set model.init_args.labels."
            )
        self.beta = checked(self, "beta", beta, "> 0")
        self.scale = checked(self, "scale", scale, "> 0")
        self.labels: Labels = labels
        self.rollout = 0

    def collect(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> RolloutBatch:
        """See ``OnPolicyObjective``.

        Raises:
            ConfigError: Not two completions a prompt.
        """
        if samples != 2:
            raise ConfigError(
                f"OnlineDPO compares two completions of a prompt, got {samples}. "
                "Set data.init_args.samples_per_prompt to 2."
            )
        self.rollout = rollout  # what the labels' noise is a function of, beside the prompt
        return super().collect(prompts, samples, rollout)

    def advantages(self, scored: Scored) -> RolloutBatch:
        """Store each completion's probability of being preferred as its advantage."""
        prompts = scored.trees.index
        # The sampler's positions count from 0, so no other noise uses this number.
        noise = uniform(self.seed, self.rollout, prompts, torch.zeros_like(prompts), -1)
        first = label(*split_pairs(scored.scores), noise, labels=self.labels, scale=self.scale)
        return self.rollout_batch(scored, torch.stack([first, 1 - first], 1).flatten())

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """One loss per pair."""
        assert batch.ref_token_logps is not None
        preference = split_pairs(batch.advantages[:, 0])[0]
        ref = split_pairs(batch.ref_token_logps.sum(1))
        loss = online_dpo_loss(*split_pairs(scores.logps), *ref, preference, beta=self.beta)
        margins = loss.chosen_rewards - loss.rejected_rewards
        agreed = accuracy(margins * (preference - 0.5).sign())
        return loss.losses, {"loss": loss.losses.mean(), "rewards/accuracies": agreed}
