"""Noise Contrastive Alignment, on pairs (Chen et al. 2024, arXiv:2402.05369).

Each completion is classified against a sample of the reference. The loss depends on each
completion's own log-ratio, not on the pair's difference, so the likelihood of chosen completions
does not fall.
"""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def nca_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """``-log sigmoid(s_w) - log(sigmoid(-s_w) sigmoid(-s_l)) / 2``, ``s = beta log-ratio``.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    noise = (F.logsigmoid(-chosen) + F.logsigmoid(-rejected)) / 2
    return PairLoss(-F.logsigmoid(chosen) - noise, chosen.detach(), rejected.detach())


class NCA(PairObjective):
    """Tell preferred completions from the reference's samples by their log-ratios.

    Arguments are those of ``DPO``; only at ``beta`` 1 is the optimum normalised.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.01,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return nca_loss(*self.four_logps(trees, scores), beta=self.beta)
