"""Proximal policy optimisation of a KL-regularised reward (Schulman et al. 2017, arXiv:1707.06347).

As in RLHF (Ziegler et al. 2019, arXiv:1909.08593; Stiennon et al. 2020, arXiv:2009.01325): the
reward stands on a completion's last real token, ``-kl_coef * log(policy / reference)`` on each
token, advantages are GAE with a value function of its own, and completions are gone through a few
times with a clipped ratio.
"""

import math
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.functional import (
    clipped_surrogate,
    clipped_value_loss,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    whiten,
)
from alignlab.models import Policy, ScoreModel, Scores
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule
from alignlab.rewards.base import Reward

KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def ppo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (Eq. 7), minimised, as (sum, count) over the tokens under the mask.

    All tensors are ``[M, T]``; cells outside the mask never matter. ``old_token_logps`` are those
    of the policy that sampled.
    """
    losses = clipped_surrogate(
        token_logps, old_token_logps, advantages, mask, clip_epsilon=clip_epsilon
    )
    return losses.sum(), mask.sum()


class PPO(OnPolicyObjective):
    """Maximise a reward minus ``kl_coef`` times the divergence from the reference.

    Args:
        policy: The language model to train; as it is now, it is also the reference.
        reward: Scores completions: a trained reward model, or the gold reward.
        sampling: How rollouts are sampled.
        optimizer: Builds the optimizer, over policy and value function.
        value: A value function of its own, started from the reward model or the policy's folder.
            Left out, a linear head on the policy's hidden states is used.
        detach_value: Keep the gradient of a shared value head out of the policy's trunk.
        value_lr: Learning rate of the value function; the optimizer's own when left out.
        value_coef: Weight of the value loss.
        clip_epsilon: How far a token's ratio may move before its gradient stops.
        value_clip_epsilon: The same for values, in reward units; ``inf`` does not clip.
        discount: Of later rewards; 1 in language tasks.
        gae_lambda: 1 is unbiased, less has lower variance and trusts the values more.
        kl_coef: See ``OnPolicyObjective``.
        kl_target: See ``OnPolicyObjective``.
        kl_horizon: See ``OnPolicyObjective``.
        kl_in: Put the penalty in the ``reward`` (k1 per token; the right gradient) or in the
            ``loss``; never both.
        kl_estimator: Per-token estimator of a penalty in the loss. None of them has the exact
            gradient: their fixed points differ from the optimum.
        whiten_rewards: Scale rewards, penalty included, to variance 1 and keep their mean. It
            changes what ``kl_coef`` means.
        whiten_advantages: Give the advantages of a phase mean 0 and variance 1.
        missing_eos_penalty: See ``OnPolicyObjective``.
        centre_rewards: See ``OnPolicyObjective``.
        old_logps: See ``OnPolicyObjective``.
        reference: See ``DPO``.
        seed: Sampling noise is a function of it.
        score_batch_size: Prompts per forward when rollouts are scored.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: A clip range or coefficient that cannot work.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        value: ScoreModel | None = None,
        detach_value: bool = True,
        value_lr: float | None = None,
        value_coef: float = 0.1,
        clip_epsilon: float = 0.2,
        value_clip_epsilon: float = 0.2,
        discount: float = 1.0,
        gae_lambda: float = 0.95,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        kl_in: Literal["reward", "loss"] = "reward",
        kl_estimator: Literal["k1", "k2", "k3"] = "k3",
        whiten_rewards: bool = False,
        whiten_advantages: bool = True,
        missing_eos_penalty: float = 0.0,
        centre_rewards: bool = True,
        old_logps: Literal["rescored", "sampled"] = "rescored",
        reference: Literal["auto", "frozen", "adapter_off"] = "auto",
        seed: int = 0,
        score_batch_size: int = 256,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            policy,
            reward,
            sampling,
            optimizer,
            kl_coef,
            kl_target,
            kl_horizon,
            missing_eos_penalty,
            centre_rewards,
            old_logps,
            reference,
            seed,
            score_batch_size,
            schedule,
        )
        for name, number in (
            ("clip_epsilon", clip_epsilon),
            ("value_clip_epsilon", value_clip_epsilon),
        ):
            if number <= 0:
                raise ConfigError(
                    f"PPO needs {name} > 0, got {number}. Set model.init_args.{name}."
                )
        self.value = value
        self.value_head = nn.Linear(policy.model.config.hidden_size, 1) if value is None else None
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)
        self.detach_value, self.value_lr, self.value_coef = detach_value, value_lr, value_coef
        self.clip_epsilon, self.value_clip_epsilon = clip_epsilon, value_clip_epsilon
        self.discount, self.gae_lambda = discount, gae_lambda
        self.kl_in, self.kl_estimator = kl_in, kl_estimator
        self.whiten_rewards, self.whiten_advantages = whiten_rewards, whiten_advantages

    def parameter_groups(self) -> list[dict[str, object]]:
        """Policy and value function in one optimizer, so that a step is a step."""
        value = self.value if self.value is not None else self.value_head
        assert value is not None
        group: dict[str, object] = {"params": list(value.parameters())}
        if self.value_lr is not None:
            group["lr"] = self.value_lr
        return [{"params": [p for p in self.policy.parameters() if p.requires_grad]}, group]

    def advantages(self, scored: Scored) -> RolloutBatch:
        """GAE on the reward at the last token and the KL penalty on every token."""
        trees, mask = scored.trees, scored.trees.loss_mask
        rewards = torch.zeros_like(scored.token_logps)
        if self.kl_in == "reward":
            rewards -= self.kl_coef * (scored.token_logps - scored.ref_token_logps)
        last = trees.completion_lengths - 1
        rewards[torch.arange(len(last), device=last.device), last] += scored.scores.to(rewards)
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        values = self.in_chunks(trees, self._values_of)
        advantages, returns = gae(
            rewards, values, mask, discount=self.discount, gae_lambda=self.gae_lambda
        )
        if self.whiten_advantages:
            advantages = whiten(advantages, mask)
        return RolloutBatch(trees, scored.token_logps, advantages, returns, values)

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> Tensor:
        """One minibatch: clipped surrogate, value loss, and the KL penalty if it stands here."""
        trees, mask = batch.trees, batch.trees.loss_mask
        assert batch.returns is not None
        assert batch.old_values is not None
        want = ("hidden",) if self.value is None else ()
        scores = self.policy(trees, want, spec=self.sampling.spec)
        if batch.first:
            self._check_ratio(scores.token_logps, batch.old_token_logps)
        policy_loss, count = ppo_loss(
            scores.token_logps,
            batch.old_token_logps,
            batch.advantages,
            mask,
            clip_epsilon=self.clip_epsilon,
        )
        value_loss = clipped_value_loss(
            self._values(trees, scores),
            batch.old_values,
            batch.returns,
            mask,
            value_clip_epsilon=self.value_clip_epsilon,
        ).sum()
        loss = policy_loss + self.value_coef * value_loss
        if self.kl_in == "loss":
            ref = self.reference.token_logps(trees, self.sampling.spec)
            loss = loss + self.kl_coef * self._kl_loss(scores.token_logps, ref)
        self._log(
            scores, batch, {"policy_loss": policy_loss / count, "value_loss": value_loss / count}
        )
        return self.normalised(loss, trees.totals.tokens)

    def _kl_loss(self, token_logps: Tensor, ref_token_logps: Tensor) -> Tensor:
        return KL_ESTIMATORS[self.kl_estimator](token_logps, ref_token_logps).sum()

    def _values(self, trees: PromptTrees, scores: Scores) -> Tensor:
        if self.value is not None:
            return self.value.values(trees)
        assert scores.hidden is not None
        assert self.value_head is not None
        hidden = scores.hidden.detach() if self.detach_value else scores.hidden
        values: Tensor = self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)
        return values

    def _values_of(self, trees: PromptTrees) -> Tensor:
        if self.value is not None:
            return self.value.values(trees)
        return self._values(trees, self.policy(trees, ("hidden",), spec=self.sampling.spec))

    def _check_ratio(self, token_logps: Tensor, old_token_logps: Tensor) -> None:
        """No update has happened yet, so sampler and training forward must agree.

        Raises:
            FloatingPointError: They do not: dropout, padding or sampling settings differ.
        """
        gap = float((token_logps.detach() - old_token_logps).abs().max())
        self.log("train/first_log_ratio", gap)
        exact = self.old_logps == "rescored" and self.policy.model.dtype != torch.bfloat16
        if math.isnan(gap) or gap > (1e-3 if exact else 1.0):
            raise FloatingPointError(
                f"before any update the policy's log-probs differ from those of its rollout by "
                f"{gap:.1e} nats a token: sampling and training see different models."
            )

    @torch.no_grad()
    def _log(self, scores: Scores, batch: RolloutBatch, means: dict[str, Tensor]) -> None:
        log_ratio = scores.token_logps.detach() - batch.old_token_logps
        clipped = ((log_ratio.exp() - 1).abs() > self.clip_epsilon) & scores.mask
        means["clip_fraction"] = clipped.sum() / scores.mask.sum()
        means["approx_kl"] = (
            kl_k3(-log_ratio, torch.zeros_like(log_ratio)).sum() / scores.mask.sum()
        )
        self.log_means("train", means, batch.trees.totals.tokens)
