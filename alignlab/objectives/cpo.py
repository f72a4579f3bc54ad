"""Contrastive Preference Optimisation (Xu et al. 2024, arXiv:2401.08417, Eq. 3-5).

DPO with a uniform reference, which cancels, plus a likelihood term that replaces it.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, Scores
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def cpo_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, *, beta: float, lam: float
) -> PairLoss:
    """``-log sigmoid(beta * (chosen - rejected)) - lam * chosen`` on summed log-probs.

    All inputs are ``[B]`` in nats; losses are ``[B]``. The likelihood term is a sum over tokens, as
    in Eq. 5; TRL's is their mean.
    """
    chosen, rejected = beta * policy_chosen_logps, beta * policy_rejected_logps
    losses = bradley_terry(chosen, rejected) - lam * policy_chosen_logps
    return PairLoss(losses, chosen.detach(), rejected.detach())


class CPO(PairObjective):
    """Prefer the chosen completion and imitate it, without a reference.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        beta: Scale of the log-prob margin, > 0; larger saturates sooner.
        lam: Weight of the chosen completion's negative log-likelihood, >= 0; 1 in the paper. Only
            this term keeps the policy near its data.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        lam: float = 1.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.beta = checked(self, "beta", beta, "> 0")
        self.lam = checked(self, "lam", lam, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 5 on the batch."""
        return cpo_loss(*split_pairs(scores.logps), beta=self.beta, lam=self.lam)
