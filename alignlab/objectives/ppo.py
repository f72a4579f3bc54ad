"""Proximal policy optimisation of a KL-regularised reward (Schulman et al. 2017, arXiv:1707.06347).

As in RLHF (Ziegler et al. 2019, arXiv:1909.08593; Stiennon et al. 2020, arXiv:2009.01325): the
last real token of a completion gets its reward, each token gets ``-kl_coef * log(policy /
reference)``, advantages are GAE with a value function, and each phase's completions are used for a
few passes with a clipped ratio.
"""

import sys
from dataclasses import replace
from typing import Any, Literal

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.errors import ConfigError
from alignlab.functional import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    length_adaptive_lambda,
    n_step_advantages,
    whiten,
)
from alignlab.models import LiveReference, Policy, ScoreModel, Scores
from alignlab.models.value import ValueFunction
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule, planned_steps
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward

KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def ppo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_epsilon: float,
    clip_epsilon_high: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (Eq. 7), minimised, as (sum, count) over the tokens under the mask.

    All tensors are ``[M, T]``; cells outside the mask never matter. ``old_token_logps`` are those
    of the policy that sampled. ``clip_epsilon_high``: see ``clipped_surrogate``.
    """
    losses = clipped_surrogate(
        token_logps, old_token_logps, advantages, mask,
        clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,
    )  # fmt: skip
    return losses.sum(), mask.sum()


class PPO(OnPolicyObjective):
    """Maximise a reward minus ``kl_coef`` times the divergence from the reference.

    Arguments that are not listed here: see ``OnPolicyObjective``.

    Args:
        value: A separate value function, started from the reward model or the policy's folder.
            ``adapter``: separate adapters on a policy with LoRA. Left out: a linear head on the
            policy's hidden states.
        detach_value: Keep the gradient of a shared value head out of the policy's trunk.
        value_lr: Learning rate of the value function; the optimizer's own when left out.
        value_coef: Weight of the value loss.
        clip_epsilon: How far a token's ratio may move before its gradient stops; ``inf`` leaves
            the importance-weighted gradient.
        clip_epsilon_high: The same for a token that becomes likelier; ``clip_epsilon`` when left
            out. A larger one (DAPO, arXiv:2503.14476: 0.28 to 0.2) lets rare good tokens rise.
        value_clip_epsilon: The same for values, in reward units; ``inf`` does not clip.
        discount: Of later rewards; 1 in language tasks.
        gae_lambda: 1 is unbiased, less has lower variance and trusts the values more.
        gae_lambda_value: Of the returns that the values learn; 1 learns from whole returns
            (VC-PPO: Yuan et al. 2025, arXiv:2503.01491). ``gae_lambda`` when left out.
        gae_lambda_policy: Of the policy's advantages; ``gae_lambda`` when left out.
        length_adaptive_alpha: Instead of ``gae_lambda_policy``, let it grow with a completion's
            tokens (``length_adaptive_lambda``). Lambda is 0 below ``1 / alpha`` tokens.
        n_steps: Advantages from this many rewards and the value after them, instead of GAE.
        kl_in: Put the penalty in the ``reward`` (k1 per token; the right gradient) or in the
            ``loss``; never both.
        kl_estimator: Per-token estimator of a penalty in the loss. None of them has the exact
            gradient: their fixed points differ from the optimum.
        whiten_rewards: Scale rewards, penalty included, to variance 1 and keep their mean. It
            changes what ``kl_coef`` means.
        whiten_advantages: Give the advantages of a phase mean 0 and variance 1.
        ptx_coef: Weight of the language-modelling loss on the pretraining texts that the data mix
            in (PPO-ptx: Ouyang et al. 2022, arXiv:2203.02155, Eq. 2); both losses are means over
            tokens.
        value_warmup_steps: Train the value function alone for this many optimizer steps, on
            samples of the reference. The policy's weights, its optimizer's state and ``kl_coef``
            do not change meanwhile, and its schedule begins afterwards. The trainer counts these
            steps.

    Raises:
        ConfigError: A number out of its range; both ``gae_lambda_policy`` and
            ``length_adaptive_alpha``; ``ptx_coef`` without texts.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        value: ScoreModel | Literal["adapter"] | None = None,
        detach_value: bool = True,
        value_lr: float | None = None,
        value_coef: float = 0.1,
        clip_epsilon: float = 0.2,
        clip_epsilon_high: float | None = None,
        value_clip_epsilon: float = 0.2,
        discount: float = 1.0,
        gae_lambda: float = 0.95,
        n_steps: int | None = None,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        kl_in: Literal["reward", "loss"] = "reward",
        kl_estimator: Literal["k1", "k2", "k3"] = "k3",
        whiten_rewards: bool = False,
        whiten_advantages: bool = True,
        ptx_coef: float = 0.0,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
        gae_lambda_value: float | None = None,
        gae_lambda_policy: float | None = None,
        length_adaptive_alpha: float | None = None,
        value_warmup_steps: int = 0,
    ) -> None:
        super().__init__(
            policy, reward, sampling, optimizer, kl_coef, kl_target, kl_horizon, reference, seed,
            schedule,
        )  # fmt: skip
        self.value = ValueFunction(policy, value, detach_value)
        self.want = self.value.want
        self.value_lr = checked(self, "value_lr", value_lr, "> 0")
        self.value_coef = checked(self, "value_coef", value_coef, ">= 0")
        self.clip_epsilon = checked(self, "clip_epsilon", clip_epsilon, "> 0")
        self.clip_epsilon_high = checked(self, "clip_epsilon_high", clip_epsilon_high, "> 0")
        self.value_clip_epsilon = checked(self, "value_clip_epsilon", value_clip_epsilon, "> 0")
        self.discount = checked(self, "discount", discount, "in [0, 1]")
        self.gae_lambda = checked(self, "gae_lambda", gae_lambda, "in [0, 1]")
        self.gae_lambda_value = checked(self, "gae_lambda_value", gae_lambda_value, "in [0, 1]")
        self.gae_lambda_policy = checked(self, "gae_lambda_policy", gae_lambda_policy, "in [0, 1]")
        alpha = checked(self, "length_adaptive_alpha", length_adaptive_alpha, "> 0")
        if alpha is not None and gae_lambda_policy is not None:
            raise ConfigError(
                f"PPO has one lambda for the policy, got gae_lambda_policy {gae_lambda_policy} and "
                f"length_adaptive_alpha {alpha}. Leave one out of model.init_args."
            )
        self.length_adaptive_alpha = alpha
        self.n_steps = checked(self, "n_steps", n_steps, "> 0")
        self.kl_in, self.kl_estimator = kl_in, KL_ESTIMATORS[kl_estimator]
        self.whiten_rewards, self.whiten_advantages = whiten_rewards, whiten_advantages
        self.ptx_coef = checked(self, "ptx_coef", ptx_coef, ">= 0")
        self.value_warmup_steps = checked(self, "value_warmup_steps", value_warmup_steps, ">= 0")

    @property
    def shared_value(self) -> ValueFunction | None:
        """Its values come with the samples if it is a head on the policy."""
        return self.value if self.value.want else None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Policy and value function in one optimizer, so that both count the same steps."""
        of_value = self.value.own_parameters()
        known = set(map(id, of_value))
        policy = [p for p in self.policy.parameters() if p.requires_grad and id(p) not in known]
        rate = {} if self.value_lr is None else {"lr": self.value_lr}
        begun = {"first_step": self.value_warmup_steps}
        return [{"params": policy, **begun}, {"params": of_value, **rate}]

    @property
    def policy_learns(self) -> bool:
        """Whether the value function's warm-up is over."""
        done = 0 if self._trainer is None else self.trainer.global_step
        return done >= self.value_warmup_steps

    def on_after_backward(self) -> None:
        """Drop the policy's gradients in the warm-up: the optimizer then leaves it alone."""
        if not self.policy_learns:
            for parameter in self.parameter_groups()[0]["params"]:
                parameter.grad = None

    def on_fit_start(self) -> None:
        """Refuse a pretraining mix that the data lack; say if the policy will not be trained."""
        planned = planned_steps(self.trainer) if self.value_warmup_steps else None
        if planned is not None and planned <= self.value_warmup_steps:
            print(
                f"PPO does not train the policy: the run's {planned} optimizer steps are within "
                f"value_warmup_steps {self.value_warmup_steps}. Set trainer.max_steps above it",
                file=sys.stderr,
            )
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.ptx_coef and getattr(data, "pretraining", None) is None:
            raise ConfigError(
                f"ptx_coef {self.ptx_coef} needs texts: set data.init_args.pretraining to a "
                "TextData, or model.init_args.ptx_coef to 0."
            )

    def lambdas(self, mask: Tensor) -> tuple[float | Tensor, float]:
        """The policy's lambda of GAE (``[M]`` if it depends on the length) and the values' one."""
        own, of_value = self.gae_lambda_policy, self.gae_lambda_value
        for_policy: float | Tensor = self.gae_lambda if own is None else own
        if self.length_adaptive_alpha is not None:
            for_policy = length_adaptive_lambda(mask, alpha=self.length_adaptive_alpha)
        return for_policy, self.gae_lambda if of_value is None else of_value

    def advantages(self, scored: Scored) -> RolloutBatch:
        """Values and advantages; the rewards have the KL penalty if ``kl_in`` is "reward"."""
        trees, mask = scored.trees, scored.trees.loss_mask
        rewards = self.token_rewards(scored, penalised=self.kl_in == "reward")
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        values = self.in_chunks(trees, self.value) if scored.values is None else scored.values
        steps = rewards, values, mask
        if self.n_steps is None:
            for_policy, for_value = self.lambdas(mask)
            advantages, _ = gae(*steps, discount=self.discount, gae_lambda=for_policy)
            _, returns = gae(*steps, discount=self.discount, gae_lambda=for_value)
        else:
            advantages, returns = n_step_advantages(*steps, discount=self.discount, n=self.n_steps)
        if self.whiten_advantages:
            advantages = whiten(advantages, mask)
        batch = self.rollout_batch(scored, advantages)
        return replace(batch, returns=returns, old_values=values)

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Clipped surrogate, value loss, and the KL penalty if ``kl_in`` is "loss"."""
        assert batch.returns is not None
        assert batch.old_values is not None
        mask = batch.trees.loss_mask
        ratios = scores.token_logps, batch.old_token_logps
        clip: dict[str, Any] = {
            "clip_epsilon": self.clip_epsilon,
            "clip_epsilon_high": self.clip_epsilon_high,
        }
        policy_loss, count = ppo_loss(*ratios, batch.advantages, mask, **clip)
        value_loss = clipped_value_loss(
            self.value(batch.trees, scores.hidden),
            batch.old_values,
            batch.returns,
            mask,
            value_clip_epsilon=self.value_clip_epsilon,
        ).sum()
        loss = policy_loss + self.value_coef * value_loss
        if self.kl_in == "loss":
            assert batch.ref_token_logps is not None
            kl = self.kl_estimator(scores.token_logps, batch.ref_token_logps)
            loss = loss + self.kl_coef * kl.sum()
        return loss, {
            "policy_loss": policy_loss / count,
            "value_loss": value_loss / count,
            "clip_fraction": clip_fraction(*ratios, mask, **clip),
        }

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> Tensor:
        """One minibatch, and its share of the pretraining mix."""
        loss = super().training_step(batch, batch_idx)
        if not self.ptx_coef:
            return loss
        assert batch.pretraining is not None
        texts = batch.pretraining
        negative = -self.policy(texts).logps.sum()
        count = texts.totals.tokens
        self.log_step({"ptx_loss": mean_of(negative, texts.loss_mask.sum())}, 1)
        return loss + self.ptx_coef * self.normalised(negative, count)
