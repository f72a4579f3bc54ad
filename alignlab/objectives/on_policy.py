"""The base of objectives that learn from their own samples: the rollout and the update step.

A rollout samples completions of prompts and computes their rewards, and their log-probs under the
sampling policy and under the reference. A subclass computes advantages from these, and the loss.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import pad

from alignlab.clock import CLOCK
from alignlab.data.rollouts import RolloutBatch, select_prompts
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.distributed import from_all, own_share, rows_of_all
from alignlab.errors import ConfigError
from alignlab.functional import (
    beyond_rounding,
    group_normalise,
    kl_k1,
    kl_k3,
    leave_one_out,
    unequal,
)
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import LiveReference, Policy, Scores, make_reference
from alignlab.models.loading import freeze
from alignlab.models.modes import reading
from alignlab.models.sharding import gathered
from alignlab.models.value import ValueFunction
from alignlab.objectives.base import LossAndMetrics, Objective, own_count
from alignlab.objectives.metrics import largest, mean_of
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward, checked_rewards
from alignlab.rollouts.comparison import check_drawn
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples


@dataclass(frozen=True, slots=True)
class Sampling:
    """How rollouts are sampled and scored.

    Args:
        max_new_tokens: Longest completion.
        spec: Temperature; also applied when the samples are scored. Objectives refuse top-k and
            top-p.
        stop_at_eos: End a completion at the end-of-text token; otherwise all have full length.
        batch_size: Completions sampled at a time.
        missing_eos_penalty: Subtracted from the reward of a completion that did not end by itself.
        centre_rewards: Subtract the mean reward of the first phase, sampled from the reference, so
            that a value function starts near 0.
        old_logps: ``rescored`` runs the sampled tokens through the training forward, so that the
            first ratio is 1 up to rounding. ``sampled`` keeps the sampler's log-probs (and the
            values of a value head on the policy) and saves that forward. ``auto`` is ``sampled``
            if the step computes in float32 or finer, else ``rescored``: in bfloat16 the two differ
            by more than an update changes them.
        precision: ``bf16`` samples in bfloat16 although the step computes in float32: faster if
            the hardware has bfloat16. Log-probs are then rescored, so the lower precision affects
            only which tokens are drawn.
        score_batch_size: Prompts per forward when rollouts are scored.
        ratio_cap: Largest importance weight, of a token in REINFORCE and of a completion in RLOO;
            PPO and GRPO clip instead. With ``sampled`` log-probs in low precision, set it to about
            2, because weights then also contain the difference between two forwards.

    Raises:
        ConfigError: A size, cap or temperature that is not positive (at temperature 0 sampling is
            deterministic, so there is no policy gradient); a negative penalty; ``precision`` bf16
            with ``old_logps`` sampled.
    """

    max_new_tokens: int
    spec: SamplingSpec = field(default_factory=SamplingSpec)
    stop_at_eos: bool = True
    batch_size: int = 256
    missing_eos_penalty: float = 0.0
    centre_rewards: bool = True
    old_logps: Literal["auto", "rescored", "sampled"] = "auto"
    precision: Literal["step", "bf16"] = "step"
    score_batch_size: int = 256
    ratio_cap: float = math.inf
    drop_equal_groups: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_size", "score_batch_size", "ratio_cap"):
            checked(self, f"sampling.{name}", getattr(self, name), "> 0")
        checked(self, "sampling.missing_eos_penalty", self.missing_eos_penalty, ">= 0")
        checked(self, "sampling.spec.temperature", self.spec.temperature, "> 0")
        if self.precision == "bf16" and self.old_logps == "sampled":
            raise ConfigError(
                "sampling.precision bf16 needs old_logps auto or rescored, got sampled: log-probs "
                "in bfloat16 differ from the step's by more than an update moves them. Set "
                "model.init_args.sampling.old_logps."
            )


@dataclass(slots=True)
class Scored:
    """A phase's completions with rewards and log-probs, for advantages; ``[M]`` or ``[M, T]``."""

    trees: PromptTrees
    token_logps: Tensor  # under the policy that sampled
    ref_token_logps: Tensor
    scores: Tensor  # [M], the reward as it is used (centred, penalised)
    values: Tensor | None = None  # before each token, where the sampler's are used

    @property
    def token_kl(self) -> Tensor:
        """``[M, T]`` unbiased estimate of each token's KL to the reference in nats (k1)."""
        return kl_k1(self.token_logps, self.ref_token_logps)

    @property
    def kl(self) -> Tensor:
        """``[M]`` unbiased estimate of each completion's KL: the sum over its tokens."""
        return self.token_kl.sum(1)


class OnPolicyObjective(Objective):
    """Samples from the policy, scores the samples with a reward, and trains on them.

    A subclass computes the ``advantages`` of a scored phase, and the ``losses``.

    Args:
        policy: The language model to train; its initial state is also the reference.
        reward: Scores completions: a trained reward model, or the gold reward.
        sampling: How completions are sampled and scored.
        optimizer: Builds the optimizer.
        kl_coef: Strength of the KL penalty; its initial value, if there is a target.
        kl_target: KL in nats per completion that an adaptive ``kl_coef`` steers to (Ziegler et al.
            2019, arXiv:1909.08593); ``None`` keeps it fixed.
        kl_horizon: Episodes over which an error of 20 % moves ``kl_coef`` by 20 %. The 10,000 of
            the paper are for runs of a million episodes; scale it to yours.
        reference: As in ``DPO``, without ``cached``.
        seed: Seed of the sampling noise.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: A negative coefficient, a target or horizon that is not positive, samples by
            top-k or top-p, or a setting of the sampling that the objective does not use.
    """

    min_samples: ClassVar[int] = 1  # completions of a prompt
    caps_ratio: ClassVar[bool] = False  # whether it reads ``sampling.ratio_cap``
    unit: Literal["prompts", "completions", "tokens"] = "tokens"  # of a mean loss
    want: tuple[str, ...] = ()  # what ``losses`` needs of the policy besides log-probs
    kl_coef: Tensor
    reward_mean: Tensor

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        kl_coef: float = 0.05,
        kl_target: float | None = None,
        kl_horizon: int = 10_000,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.kl_target = checked(self, "kl_target", kl_target, "> 0")
        self.kl_horizon = checked(self, "kl_horizon", kl_horizon, "> 0")
        if sampling.spec.top_k or sampling.spec.top_p < 1:
            raise ConfigError(
                f"{type(self).__name__} cannot learn from samples of top_k {sampling.spec.top_k} "
                f"and top_p {sampling.spec.top_p}: the tokens that are kept change with every "
                "update and differ in the reference, and a token that is not kept has no log-prob. "
                "Set top_k to 0 and top_p to 1 in model.init_args.sampling.spec; a temperature "
                "below 1 works."
            )
        if sampling.drop_equal_groups and self.min_samples < 2:
            raise ConfigError(
                f"{type(self).__name__} does not compare the completions of a prompt, so it cannot "
                "drop groups with equal rewards. Leave out "
                "model.init_args.sampling.drop_equal_groups."
            )
        if sampling.ratio_cap < math.inf and not self.caps_ratio:
            raise ConfigError(
                f"{type(self).__name__} does not cap importance weights, got ratio_cap "
                f"{sampling.ratio_cap}. Leave out model.init_args.sampling.ratio_cap."
            )
        if isinstance(reward, nn.Module):
            freeze(reward)  # it scores and is not trained, although it is a part of this module
        self.policy, self.reward, self.sampling = policy, reward, sampling
        self.added_tokens = sampling.max_new_tokens
        self.reference = make_reference(policy, reference)
        self.seed = seed
        self.phase = dict[str, float]()  # what the latest rollouts were like
        self._compared = False  # whether the sampler has been compared with the forward
        kl_coef = checked(self, "kl_coef", kl_coef, ">= 0")
        self.register_buffer("kl_coef", torch.tensor(float(kl_coef), dtype=torch.float64))
        self.register_buffer("reward_mean", torch.tensor(torch.nan, dtype=torch.float64))

    @abstractmethod
    def advantages(self, scored: Scored) -> RolloutBatch:
        """Turn rewards into what the update needs (see ``rollout_batch``)."""

    @abstractmethod
    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """A minibatch's loss, to be summed and divided by the step's ``unit``; means to log."""

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> Tensor:
        """One minibatch of the phase in progress."""
        scores = self.policy(batch.trees, self.want, spec=self.sampling.spec)
        if batch.first:
            self._check_ratio(batch, scores)
        losses, means = self.losses(batch, scores)
        # The samples are the old policy's: this estimates KL(old || policy) per token.
        moved = kl_k3(batch.old_token_logps, scores.token_logps.detach())[scores.mask]
        means = {**means, "approx_kl": mean_of(moved.sum(), len(moved))}
        self.log_step(means, own_count(batch.trees, self.unit))
        count = getattr(batch.trees.totals, self.unit)
        return self.normalised(self.finite(losses, batch.trees).sum(), count)

    @property
    def shared_value(self) -> ValueFunction | None:
        """A value function on the policy's states, whose values the sampler can give."""
        return None

    @property
    def policy_learns(self) -> bool:
        """Whether the next optimizer step trains the policy."""
        return True

    def completion_rewards(self, scored: Scored) -> Tensor:
        """``[M]`` reward of each whole completion minus its KL penalty (k1)."""
        return scored.scores - self.kl_coef * scored.kl

    def token_rewards(self, scored: Scored, *, penalised: bool = True) -> Tensor:
        """``[M, T]``: the reward on the last real token, the KL penalty (k1) on every token.

        The last token is found by length, never by comparing ids with a pad token.
        """
        rewards = torch.zeros_like(scored.token_logps)
        if penalised:
            rewards -= self.kl_coef * scored.token_kl
        last = scored.trees.completion_lengths - 1
        rewards[torch.arange(len(last), device=last.device), last] += scored.scores.to(rewards)
        return rewards

    @staticmethod
    def rollout_batch(scored: Scored, advantages: Tensor) -> RolloutBatch:
        """The phase with ``advantages`` ``[M, T]``, or ``[M]`` for whole completions."""
        mask = scored.trees.loss_mask
        per_token = advantages[:, None] if advantages.dim() == 1 else advantages
        return RolloutBatch(
            scored.trees,
            scored.token_logps,
            torch.where(mask, per_token, 0).to(scored.token_logps),
            ref_token_logps=scored.ref_token_logps,
        )

    def collect(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> RolloutBatch:
        """Sample ``samples`` completions of each prompt and prepare them for the update.

        Args:
            prompts: The phase's prompts.
            samples: Completions of each.
            rollout: Number of the phase; part of what the sampling noise is a function of.

        Raises:
            ConfigError: Fewer ``samples`` than the advantages need.
        """
        if samples < self.min_samples:
            raise ConfigError(
                f"{type(self).__name__} compares a completion with others of its prompt and needs "
                f"at least {self.min_samples} of each, got {samples}. "
                "Set data.init_args.samples_per_prompt."
            )
        with reading(self):
            scored = self._score(prompts, samples, rollout)
            batch = self.advantages(scored)
        kl, kl_coef = float(scored.kl.mean()), float(self.kl_coef)
        lengths = scored.trees.completion_lengths.double()
        means = {"score": float(scored.scores.mean()), "kl": kl, "kl_coef": kl_coef}
        means["length"] = float(lengths.mean())
        # The mean of -log p over samples is an unbiased estimate of the entropy per token.
        means["entropy"] = -float(scored.token_logps.sum() / scored.trees.loss_mask.sum())
        if self.sampling.drop_equal_groups:
            kept = unequal(scored.scores, scored.trees.group)
            means["kept"] = float(kept.double().mean())
            counted = batch.trees.loss_mask & kept[:, None]
            batch = replace(batch, trees=replace(batch.trees, loss_mask=counted))
        self.phase = means
        if self._trainer is not None and self.trainer.logger is not None:
            named = {f"rollout/{name}": value for name, value in means.items()}
            self.trainer.logger.log_metrics(named, self.trainer.global_step)
        if self.kl_target is not None and self.policy_learns:
            sizes = {"episodes": len(lengths), "horizon": self.kl_horizon}
            self.kl_coef.fill_(adapted_kl_coef(kl_coef, kl, target=self.kl_target, **sizes))
        return batch.to("cpu")

    def _score(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> Scored:
        """Sample completions, score them, and compute the policy's and the reference's log-probs.

        Each rank samples and scores its share of the prompts, and then has all of them.
        """
        sampling = self.sampling
        stops = self.policy.stop_ids if sampling.stop_at_eos else []
        value = None if self._rescored() else self.shared_value
        whole = gathered(self.policy, *([] if value is None else [value]))
        with self._sampling_precision(), whole:
            drawn = sample(
                self.policy,
                own_share(prompts),
                samples=samples,
                max_new_tokens=sampling.max_new_tokens,
                spec=sampling.spec,
                seed=self.seed,
                rollout=rollout,
                stop_ids=stops,
                batch_size=sampling.batch_size,
                value=None if value is None else value.of,
            )
        with CLOCK.part("reward"):
            own_scores = checked_rewards(self.reward, *drawn.texts(self.tokenizer))
        drawn = Samples.joined(from_all(drawn))
        trees = collate(drawn.trees).to(self.policy.device)
        scores = rows_of_all(own_scores.to(self.policy.device))
        if sampling.centre_rewards:
            if torch.isnan(self.reward_mean):
                self.reward_mean.fill_(scores.mean())
            scores = scores - self.reward_mean
        if stops:
            finished = torch.tensor([f for row in drawn.finished for f in row])
            scores = scores - sampling.missing_eos_penalty * (~finished).to(scores)
        old = self.old_logps(drawn, trees, compare=not self._compared)
        self._compared = True
        ref = self.in_chunks(trees, lambda part: self.reference.token_logps(part, sampling.spec))
        values = None if value is None else spread(drawn.values, trees)
        return Scored(trees, old, ref, scores, values)

    def _sampling_precision(self) -> AbstractContextManager[None]:
        if self.sampling.precision == "step":
            return self.own_precision()
        return torch.autocast(self.policy.device.type, torch.bfloat16)

    def _rescored(self) -> bool:
        """Whether log-probs of samples are computed by the training forward (``old_logps``)."""
        with self._sampling_precision():
            exact = torch.finfo(self.policy.precision).eps <= torch.finfo(torch.float32).eps
        how = self.sampling.old_logps
        return how == "rescored" or (how == "auto" and not exact)

    def old_logps(self, drawn: Samples, trees: PromptTrees, *, compare: bool) -> Tensor:
        """``[M, T]`` log-probs under the policy that sampled, rescored or as the sampler gave them.

        The sampler's are compared with a forward's where there is one anyway, or with ``compare``.

        Raises:
            ConfigError: They differ: another distribution was sampled than is trained.
        """
        spec, rescored = self.sampling.spec, self._rescored()
        if rescored or compare:
            scored = self.in_chunks(trees, lambda part: self.policy(part, spec=spec).token_logps)
            with self._sampling_precision():
                dtype = self.policy.precision
            check_drawn(drawn, scored[trees.loss_mask], type(self.policy.model).__name__, dtype)
            if rescored:
                return scored
        return spread(drawn.token_logps, trees)

    def in_chunks(self, trees: PromptTrees, compute: Callable[[PromptTrees], Tensor]) -> Tensor:
        """``compute`` (trees -> ``[m, t]``) on parts of a phase, put together to ``[M, T]``.

        Each rank computes its share. In the training step's own precision: what comes out is
        compared with a step.
        """
        width, out = trees.loss_mask.shape[1], []
        prompts = torch.arange(len(trees.prompt_lengths), device=trees.prompt_ids.device)
        with self.own_precision():
            for some in own_share(prompts).split(self.sampling.score_batch_size):
                part = compute(select_prompts(trees, some)[0])
                out.append(pad(part, (0, width - part.shape[1])))
        return rows_of_all(torch.cat(out))

    def _check_ratio(self, batch: RolloutBatch, scores: Scores) -> None:
        """Check that sampler and training forward agree before the first update.

        The rollout was read without dropout; where the training has some, so is this once.

        Raises:
            FloatingPointError: They do not: padding or sampling settings differ.
        """
        if self.policy.has_dropout:
            with reading(self.policy):
                scores = self.policy(batch.trees, spec=self.sampling.spec)
        now, before = scores.token_logps.detach()[scores.mask], batch.old_token_logps[scores.mask]
        self.log_step({"first_log_ratio": largest((now - before).abs())}, 1)
        if len(now):  # some prompt of this micro-batch was kept
            check_ratio(now, before, self.policy.precision)


def spread(rows: Sequence[Sequence[Tensor]], trees: PromptTrees) -> Tensor:
    """``[M, T]`` of what a sampler gave for each token of each prompt's completions."""
    flat = torch.cat([each for row in rows for each in row])
    cells = flat.new_zeros(trees.loss_mask.shape).to(trees.loss_mask.device)
    return cells.masked_scatter(trees.loss_mask, flat.to(cells))


class LeaveOneOutObjective(OnPolicyObjective):
    """Judges a completion by its penalised reward minus the mean of its prompt's others."""

    min_samples = 2

    def advantages(self, scored: Scored) -> RolloutBatch:
        """One advantage per completion (``leave_one_out``)."""
        rewards = self.completion_rewards(scored)
        return self.rollout_batch(scored, leave_one_out(rewards, scored.trees.group))


class GroupObjective(OnPolicyObjective):
    """Judges a completion by its reward among those of its prompt (``group_normalise``)."""

    min_samples = 2
    scale_by_std: bool
    kl_in: Literal["reward", "loss", "weighted_loss"] = "reward"

    def advantages(self, scored: Scored) -> RolloutBatch:
        """One advantage per completion; its reward has the KL penalty if ``kl_in`` says so."""
        penalised = self.kl_in == "reward"
        rewards = self.completion_rewards(scored) if penalised else scored.scores
        return self.rollout_batch(
            scored, group_normalise(rewards, scored.trees.group, scale=self.scale_by_std)
        )


def check_ratio(now: Tensor, before: Tensor, dtype: torch.dtype) -> float:
    """Check log-probs of tokens before any update against those of their rollout.

    Args:
        now: ``[N]`` nats in a training forward.
        before: ``[N]`` nats as the rollout kept them.
        dtype: What the coarser of the two computes in.

    Returns:
        The largest difference, the log of a probability ratio.

    Raises:
        FloatingPointError: They differ: padding or sampling settings do.
    """
    gap = beyond_rounding(now, before, dtype)
    if gap is not None:
        raise FloatingPointError(
            f"before any update the policy's log-probs differ from those of its rollout by "
            f"{gap:.1e} nats a token: sampling and training see different models."
        )
    return float((now - before).abs().max())


def adapted_kl_coef(
    kl_coef: float, kl: float, *, target: float, episodes: int, horizon: int
) -> float:
    """One step of the adaptive controller (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    As in the paper's code: the relative error, clipped to 0.2, scaled by ``episodes / horizon``.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)
