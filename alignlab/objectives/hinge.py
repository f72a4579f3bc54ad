"""Hinge loss on DPO's margin (Liu et al. 2023, RSO, arXiv:2309.06657, section 2.2).

SLiC-HF's margin loss with the reference in it: what TRL calls ``hinge``.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def hinge_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """``max(0, 1 - beta * h)``, ``h`` the log-ratio margin: no gradient beyond ``1 / beta``.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    losses = (1 - (chosen - rejected)).relu()
    return PairLoss(losses, chosen.detach(), rejected.detach())


class Hinge(PairObjective):
    """Ask a log-ratio margin of ``1 / beta`` of every preference pair, and no more.

    Arguments are those of ``DPO``.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return hinge_loss(*self.four_logps(trees, scores), beta=self.beta)
