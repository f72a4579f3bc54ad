"""Efficient Exact Optimisation, on pairs (Ji et al. 2024, arXiv:2402.00856, Eq. 16).

DPO minimises the KL from the label of a pair to the policy's prediction; this is the reverse KL.
"""

import math

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def exo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> PairLoss:
    """KL from ``sigmoid(beta h)`` to the label, of two outcomes; ``h`` is the log-ratio margin.

    The label says chosen with ``1 - label_smoothing``. All inputs are ``[B]`` summed completion
    log-probs in nats; losses are ``[B]``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    margins = chosen - rejected
    won = F.logsigmoid(margins) - math.log1p(-label_smoothing)
    lost = F.logsigmoid(-margins) - math.log(label_smoothing)
    losses = margins.sigmoid() * won + (-margins).sigmoid() * lost
    return PairLoss(losses, chosen.detach(), rejected.detach())


class EXO(PairObjective):
    """Fit a policy to smoothed preference pairs by the mode-seeking reverse KL.

    Other arguments are as in ``DPO``.

    Args:
        label_smoothing: Chance of the flipped label, in (0, 0.5). It sets the largest margin,
            ``log((1 - label_smoothing) / label_smoothing) / beta``.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        label_smoothing: float = 1e-3,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.label_smoothing = checked(self, "label_smoothing", label_smoothing, "in (0, 0.5)")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 16 on the batch."""
        logps = self.four_logps(trees, scores)
        return exo_loss(*logps, beta=self.beta, label_smoothing=self.label_smoothing)
