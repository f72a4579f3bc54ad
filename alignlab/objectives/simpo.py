"""SimPO: mean log-probs as rewards, and a margin (Meng et al. 2024, arXiv:2405.14734, Eq. 6).

With ``alpha`` it is AlphaPO (Gupta et al. 2025, arXiv:2501.03884), which bends these rewards.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.functional import bradley_terry
from alignlab.models import Policy, Scores
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def simpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    gamma: float | None = None,
    gamma_beta_ratio: float | None = None,
    alpha: float = 0.0,
) -> PairLoss:
    """``-log sigmoid(beta * (mean_w - mean_l) - gamma)`` with mean log-probs per token.

    With ``alpha`` each mean becomes ``(1 - exp(-alpha * mean)) / alpha``, which tends to it at 0.

    Args:
        policy_chosen_logps: ``[B]`` summed, in nats.
        policy_rejected_logps: ``[B]`` summed, in nats.
        chosen_lengths: ``[B]`` tokens.
        rejected_lengths: ``[B]`` tokens.
        beta: Scale of the rewards.
        gamma: The margin that chosen rewards should have (Eq. 6; TRL's ``simpo_gamma``).
        gamma_beta_ratio: ``gamma / beta``, as in the paper's code. Exactly one of the two.
        alpha: Bends the reward; the exponent is capped at 80, below float32's overflow.

    Raises:
        ConfigError: Both or neither of ``gamma`` and ``gamma_beta_ratio``.
    """
    margin = target_margin(beta, gamma, gamma_beta_ratio)
    chosen = beta * policy_chosen_logps / chosen_lengths
    rejected = beta * policy_rejected_logps / rejected_lengths
    if alpha:
        exponents = (-alpha / beta * reward for reward in (chosen, rejected))
        chosen, rejected = (-beta / alpha * torch.expm1(x.clamp(max=80)) for x in exponents)
    return PairLoss(bradley_terry(chosen - margin, rejected), chosen.detach(), rejected.detach())


def target_margin(beta: float, gamma: float | None, gamma_beta_ratio: float | None) -> float:
    """``gamma`` under whichever of its two names it was given."""
    if gamma is not None and gamma_beta_ratio is None:
        return gamma
    if gamma_beta_ratio is not None and gamma is None:
        return beta * gamma_beta_ratio
    raise ConfigError(
        f"SimPO needs exactly one of gamma (got {gamma}) and gamma_beta_ratio "
        f"(got {gamma_beta_ratio}), which is gamma / beta. Set one in model.init_args."
    )


class SimPO(PairObjective):
    """Fit a policy to preference pairs without a reference.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        beta: Scale of the mean log-prob, > 0; 2-10 is usual. A larger one drifts further in the
            same number of steps.
        gamma: Margin between chosen and rejected rewards; 0.3-1.6 is usual with ``beta`` 2.
        gamma_beta_ratio: The same divided by ``beta``; exactly one of the two.
        alpha: AlphaPO's; 0 is SimPO. Above 0, an unlikely completion of a pair counts more than a
            likely one; 0.1-0.5 is usual.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``beta`` not above 0, a negative margin; both or neither of its names.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 2.0,
        gamma: float | None = None,
        gamma_beta_ratio: float | None = None,
        alpha: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.beta = checked(self, "beta", beta, "> 0")
        self.gamma = checked(self, "gamma", target_margin(beta, gamma, gamma_beta_ratio), ">= 0")
        self.alpha = alpha

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 6 on the batch."""
        four = *split_pairs(scores.logps), *split_pairs(scores.lengths)
        return simpo_loss(*four, beta=self.beta, gamma=self.gamma, alpha=self.alpha)
