"""Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177, Eq. 10).

Maximum likelihood of the policy's own samples, each weighted by ``exp(advantage / beta)``. With one
phase, sampled from the reference, its optimum is exactly pi_ref * exp(reward / beta) / Z. With more
phases, each starts from the last policy, and ``kl_coef`` decides where they converge.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.models import LiveReference, Policy, Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.on_policy import LeaveOneOutObjective, Sampling
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked
from alignlab.rewards.base import Reward


def awr_loss(
    token_logps: Tensor, advantages: Tensor, mask: Tensor, *, beta: float, weight_cap: float
) -> tuple[Tensor, Tensor]:
    """Compute ``-min(exp(A / beta), weight_cap) * log pi`` per token as (sum, count) over tokens.

    Args:
        token_logps: ``[M, T]`` nats; cells outside the mask never matter.
        advantages: ``[M, T]`` in reward units, the same for all tokens of a completion. Advantages
            per token would change the fixed point, because they leave out what follows a token.
        mask: ``[M, T]``, which cells are tokens.
        beta: Temperature: smaller weighs good completions more.
        weight_cap: Largest weight.
    """
    mask = mask.bool()
    weights = (advantages.masked_fill(~mask, 0) / beta).exp().clamp(max=weight_cap)
    return -(weights * token_logps.masked_fill(~mask, 0)).sum(), mask.sum()


class AWR(LeaveOneOutObjective):
    """Imitate the policy's own completions, weighted by their advantages.

    The advantage of a completion is its reward minus the mean of the prompt's other completions, an
    estimate of V(x) without its own reward (a mean that includes it acts like a larger ``beta``).
    The data need ``samples_per_prompt`` of at least 2; with one phase (``inner_epochs`` for the
    whole run) the samples are fixed and come from the reference. There is no importance ratio: the
    regression uses the samples as they are. Other arguments: see ``OnPolicyObjective``.

    Args:
        beta: Temperature, in the reward's unit.
        weight_cap: Largest weight; completions at the cap are weighted alike.
        kl_coef: Strength of the KL penalty in the reward of phases after the first.

    Raises:
        ConfigError: ``beta`` or ``weight_cap`` that is not positive.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        sampling: Sampling,
        beta: float,
        optimizer: OptimizerCallable,
        weight_cap: float = 20.0,
        kl_coef: float = 0.0,
        reference: LiveReference = "auto",
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(
            policy, reward, sampling, optimizer, kl_coef, reference=reference, seed=seed,
            schedule=schedule,
        )  # fmt: skip
        self.beta = checked(self, "beta", beta, "> 0")
        self.weight_cap = checked(self, "weight_cap", weight_cap, "> 0")

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """Weighted regression, and the share of completions at the cap."""
        total, count = awr_loss(
            scores.token_logps,
            batch.advantages,
            batch.trees.loss_mask,
            beta=self.beta,
            weight_cap=self.weight_cap,
        )
        trained = batch.trees.loss_mask.any(1)
        capped = (batch.advantages[trained, 0] / self.beta).exp() >= self.weight_cap
        return total, {
            "policy_loss": mean_of(total, count),
            "capped": mean_of(capped.sum(), len(capped)),
        }
