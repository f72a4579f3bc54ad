"""A*-PO: regress own samples onto the optimal advantage (arXiv:2505.20686, Eq. 4 and 5).

The value of a prompt under the optimum, V* = beta log E exp(r / beta) over the reference, is not
learned: it is computed beforehand from samples of the reference.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward
from alignlab.rewards.pooled import RewardPool


def astar_po_loss(
    policy_logps: Tensor, ref_logps: Tensor, advantages: Tensor, *, beta: float
) -> Tensor:
    """``(beta log(policy / reference) - A)^2`` of each completion, ``[M]``.

    Args:
        policy_logps: ``[M]`` summed completion log-probs in nats.
        ref_logps: ``[M]``.
        advantages: ``[M]``, reward minus the prompt's optimal value.
        beta: Strength of the KL constraint, in the reward's unit.
    """
    return (beta * (policy_logps - ref_logps) - advantages).square()


def optimal_value(rewards: Sequence[float], *, beta: float) -> float:
    """``beta log mean exp(r / beta)`` of the rewards of reference samples of one prompt."""
    tilted = torch.tensor(rewards, dtype=torch.float64) / beta
    return beta * float(tilted.logsumexp(0) - torch.tensor(float(len(rewards))).log())


class AStarPO(OnPolicyObjective):
    """Fit the policy's log-ratios to optimal advantages, on its own samples.

    One sample of a prompt is enough. Arguments not listed: see ``OnPolicyObjective``.

    Args:
        pool: File of candidates (``alignlab.stages.candidates``), rated by the same reward, that
            has every prompt of the data.
        beta: Strength of the KL constraint, > 0; the paper's beta_2.
        value_beta: The beta of the optimal value, > 0; the paper's beta_1. If it is larger than
            ``beta``, the value needs fewer samples but is biased low. Default: ``beta``.

    Raises:
        ConfigError: A number that is not positive; a temperature other than 1 or a
            ``missing_eos_penalty``, which the pool does not have.
    """

    unit = "completions"
    pool: RewardPool

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        pool: str,
        optimizer: OptimizerCallable,
        beta: float = 1.0,
        value_beta: float | None = None,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(  # no penalty in the reward: the constraint is in the loss
            policy, reward, sampling, optimizer, kl_coef=0.0, reference=reference, seed=seed,
            schedule=schedule,
        )  # fmt: skip
        if sampling.missing_eos_penalty or not sampling.spec.plain:
            raise ConfigError(
                "AStarPO compares rewards with those of a pool, which was sampled at temperature 1 "
                "and has no penalty. Take spec and missing_eos_penalty out of "
                "model.init_args.sampling."
            )
        self.beta = checked(self, "beta", beta, "> 0")
        self.value_beta = checked(self, "value_beta", value_beta, "> 0") or beta
        self.pool_file, self._values = pool, dict[int, float]()  # by the prompt's index

    def setup(self, stage: str) -> None:
        """Read the pool, which an earlier stage has made by now."""
        self.pool = RewardPool(self.pool_file, self.reward)

    def collect(self, prompts: Sequence[PromptTree], samples: int, rollout: int) -> RolloutBatch:
        """See ``OnPolicyObjective``.

        Raises:
            DataError: A prompt that is not in the pool, or that was cut to ``max_length``.
        """
        for tree in prompts:
            if tree.source is None:
                raise DataError(
                    f"{tree.id}: cut to max_length, so the pool does not have this prompt. Raise "
                    "data.init_args.max_length."
                )
            rewards = self.pool.of(tree.source)
            self._values[tree.index] = optimal_value(rewards, beta=self.value_beta)
        return super().collect(prompts, samples, rollout)

    def advantages(self, scored: Scored) -> RolloutBatch:
        """The reward minus the optimal value of its prompt, both centred or neither."""
        values = [self._values[i] for i in scored.trees.index.tolist()]
        centred = scored.scores.new_tensor(values) - self.reward_mean.nan_to_num()
        return self.rollout_batch(scored, scored.scores - centred[scored.trees.group])

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """One loss per completion."""
        assert batch.ref_token_logps is not None
        ref_logps, advantages = batch.ref_token_logps.sum(1), batch.advantages[:, 0]
        losses = astar_po_loss(scores.logps, ref_logps, advantages, beta=self.beta)
        return losses, {"loss": losses.mean(), "advantage": advantages.mean()}
