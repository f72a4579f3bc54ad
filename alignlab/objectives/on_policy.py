"""The rollout shared by objectives that learn from their own samples: prompts in, rewards out."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import pad

from alignlab.data.rollouts import RolloutBatch, select_prompts
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy
from alignlab.objectives.base import Objective
from alignlab.objectives.referenced import ReferenceKind, make_reference
from alignlab.objectives.schedule import Schedule
from alignlab.rewards.base import Reward
from alignlab.rollouts.sampler import sample


@dataclass(frozen=True, slots=True)
class Sampling:
    """How rollouts are sampled.

    Args:
        max_new_tokens: Longest completion.
        spec: Temperature, top-k, top-p; also applied when the samples are scored.
        stop_at_eos: End a completion at the end-of-text token; otherwise all have full length.
        batch_size: Completions sampled side by side.
    """

    max_new_tokens: int
    spec: SamplingSpec = field(default_factory=SamplingSpec)
    stop_at_eos: bool = True
    batch_size: int = 256


@dataclass(slots=True)
class Scored:
    """A phase's completions with all that advantages are made of; ``[M]`` or ``[M, T]``."""

    trees: PromptTrees
    token_logps: Tensor  # under the policy that sampled
    ref_token_logps: Tensor
    scores: Tensor  # [M], the reward as it is used (centred, penalised)

    @property
    def kl(self) -> Tensor:
        """``[M]`` log-ratio of each completion: an unbiased sample of its KL in nats (k1)."""
        return (self.token_logps - self.ref_token_logps).sum(1)


class OnPolicyObjective(Objective):
    """Samples from the policy, asks for rewards, and hands over a phase of rollouts.

    Args:
        policy: The language model to train; as it is now, it is also the reference.
        reward: Scores completions.
        sampling: How completions are sampled.
        optimizer: Builds the optimizer.
        kl_coef: Strength of the KL penalty; its start, if there is a target.
        kl_target: KL in nats per completion that an adaptive ``kl_coef`` steers to (Ziegler et al.
            2019, arXiv:1909.08593); ``None`` keeps it fixed.
        kl_horizon: Episodes over which an error of 20 % moves ``kl_coef`` by 20 %. The 10,000 of
            the paper are for runs of a million episodes; scale it to yours.
        missing_eos_penalty: Subtracted from a completion that did not end by itself.
        centre_rewards: Subtract the mean reward of the first phase, sampled from the reference, so
            that the value function starts near 0.
        old_logps: ``rescored`` runs the sampled tokens through the training forward, so that the
            first ratio is 1; ``sampled`` keeps the sampler's log-probs and saves that pass.
        reference: As in ``DPO``, without ``cached``.
        seed: Sampling noise is a function of it.
        score_batch_size: Prompts per forward when rollouts are scored.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: A negative coefficient, or a target or horizon that is not positive.
    """

    kl_coef: Tensor
    reward_mean: Tensor

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        optimizer: OptimizerCallable,
        kl_coef: float,
        kl_target: float | None,
        kl_horizon: int,
        missing_eos_penalty: float,
        centre_rewards: bool,
        old_logps: Literal["rescored", "sampled"],
        reference: ReferenceKind,
        seed: int,
        score_batch_size: int,
        schedule: Schedule | None,
    ) -> None:
        super().__init__(optimizer, schedule)
        if kl_coef < 0 or (kl_target is not None and (kl_target <= 0 or kl_horizon <= 0)):
            raise ConfigError(
                f"need kl_coef >= 0 and, if set, kl_target > 0 with kl_horizon > 0; got {kl_coef}, "
                f"{kl_target}, {kl_horizon}. Set them in model.init_args."
            )
        self.policy, self.reward, self.sampling = policy, reward, sampling
        self.reference = make_reference(policy, reference)
        self.kl_target, self.kl_horizon = kl_target, kl_horizon
        self.missing_eos_penalty, self.centre_rewards = missing_eos_penalty, centre_rewards
        self.old_logps, self.seed, self.score_batch_size = old_logps, seed, score_batch_size
        self.register_buffer("kl_coef", torch.tensor(float(kl_coef), dtype=torch.float64))
        self.register_buffer("reward_mean", torch.tensor(torch.nan, dtype=torch.float64))

    @property
    def trained(self) -> Policy:
        """The policy."""
        return self.policy

    @abstractmethod
    def advantages(self, scored: Scored) -> RolloutBatch:
        """Turn rewards into what the update needs."""

    def collect(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> RolloutBatch:
        """Sample ``samples`` completions of each prompt and prepare them for the update.

        Args:
            prompts: The phase's prompts.
            samples: Completions of each.
            rollout: Number of the phase; part of what the sampling noise is a function of.
        """
        with torch.no_grad():
            scored = self._score(prompts, samples, rollout)
            batch = self.advantages(scored)
        self._log_rollout(scored)
        if self.kl_target is not None:
            self.kl_coef.fill_(
                adapted_kl_coef(
                    float(self.kl_coef),
                    float(scored.kl.mean()),
                    target=self.kl_target,
                    episodes=len(scored.scores),
                    horizon=self.kl_horizon,
                )
            )
        return batch.to("cpu")

    def _score(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> Scored:
        sampling = self.sampling
        stops = [self.tokenizer.eos_token_id] if sampling.stop_at_eos else []
        drawn = sample(
            self.policy,
            prompts,
            samples=samples,
            max_new_tokens=sampling.max_new_tokens,
            spec=sampling.spec,
            seed=self.seed,
            rollout=rollout,
            stop_ids=stops,
            batch_size=sampling.batch_size,
        )
        trees = collate(drawn.trees).to(self.policy.device)
        scores = self.reward(*drawn.texts(self.tokenizer)).to(trees.prompt_ids.device).double()
        if self.centre_rewards:
            if torch.isnan(self.reward_mean):
                self.reward_mean.fill_(scores.mean())
            scores = scores - self.reward_mean
        if stops:
            finished = torch.tensor([f for row in drawn.finished for f in row])
            scores = scores - self.missing_eos_penalty * (~finished).to(scores)
        if self.old_logps == "rescored":
            old = self.in_chunks(
                trees, lambda part: self.policy(part, spec=sampling.spec).token_logps
            )
        else:
            old = torch.zeros(trees.loss_mask.shape, dtype=torch.float32, device=scores.device)
            flat = torch.cat([logps for row in drawn.token_logps for logps in row]).to(old)
            old = old.masked_scatter(trees.loss_mask, flat)
        ref = self.in_chunks(trees, lambda part: self.reference.token_logps(part, sampling.spec))
        return Scored(trees, old, ref, scores)

    def in_chunks(self, trees: PromptTrees, compute: Callable[[PromptTrees], Tensor]) -> Tensor:
        """``compute`` (trees -> ``[m, t]``) on parts of a phase, put together to ``[M, T]``."""
        width, out = trees.loss_mask.shape[1], []
        prompts = torch.arange(len(trees.prompt_lengths), device=trees.prompt_ids.device)
        for some in prompts.split(self.score_batch_size):
            part = compute(select_prompts(trees, some)[0])
            out.append(pad(part, (0, width - part.shape[1])))
        return torch.cat(out)

    def _log_rollout(self, scored: Scored) -> None:
        means = {
            "rollout/score": scored.scores.mean(),
            "rollout/kl": scored.kl.mean(),
            "rollout/kl_coef": self.kl_coef,
            "rollout/length": scored.trees.completion_lengths.double().mean(),
        }
        if self._trainer is not None and self.trainer.logger is not None:
            self.trainer.logger.log_metrics(
                {name: float(value) for name, value in means.items()}, self.trainer.global_step
            )


def adapted_kl_coef(
    kl_coef: float, kl: float, *, target: float, episodes: int, horizon: int
) -> float:
    """One step of the adaptive controller (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    As in the paper's code: the relative error, clipped to 0.2, scaled by ``episodes / horizon``.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)
