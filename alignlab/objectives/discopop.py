"""DiscoPOP, the log-ratio modulated loss (Lu et al. 2024, arXiv:2406.08414, Eq. 5).

A loss that a language model found: the logistic loss where a pair is ordered wrongly, an
exponential one where it is ordered correctly, blended by a sigmoid.
"""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def discopop_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    tau: float,
) -> PairLoss:
    """``(1 - m) * log(1 + e^-x) + m * e^-x``, ``x`` DPO's margin and ``m = sigmoid(x / tau)``.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``. ``m * e^-x`` is
    one exponential, which for ``tau`` of at most 1 cannot overflow.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    x = chosen - rejected
    logistic = (-x / tau).sigmoid() * F.softplus(-x)
    exponential = (F.logsigmoid(x / tau) - x).exp()
    return PairLoss(logistic + exponential, chosen.detach(), rejected.detach())


class DiscoPOP(PairObjective):
    """Fit a policy to preference pairs by a blend of a logistic and an exponential loss.

    Other arguments are as in ``DPO``.

    Args:
        tau: Width of the blend in units of the margin, in (0, 1]; 0.05 is the paper's.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.05,
        tau: float = 0.05,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.tau = checked(self, "tau", tau, "in (0, 1]")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 5 on the batch."""
        return discopop_loss(*self.four_logps(trees, scores), beta=self.beta, tau=self.tau)
