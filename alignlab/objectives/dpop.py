"""DPO-Positive (Pal et al. 2024, Smaug, arXiv:2402.13228, Eq. 3).

DPO with an extra cost if a chosen completion becomes less likely than under the reference.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def dpop_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    lam: float,
) -> PairLoss:
    """``-log sigmoid(beta * (ratio_w - ratio_l - lam * max(0, -ratio_w)))`` of log-ratios.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``. ``lam`` is
    inside ``beta``. Where policy and reference agree, on the kink, the gradient is DPO's.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    losses = bradley_terry(chosen - lam * (-chosen).relu(), rejected)
    return PairLoss(losses, chosen.detach(), rejected.detach())


class DPOP(PairObjective):
    """DPO that keeps each chosen completion as likely as under the reference.

    Other arguments are as in ``DPO``.

    Args:
        lam: Cost per nat that a chosen completion loses, >= 0; 0 is DPO, the paper has 50.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.3,
        lam: float = 50.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.lam = checked(self, "lam", lam, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 3 on the batch."""
        return dpop_loss(*self.four_logps(trees, scores), beta=self.beta, lam=self.lam)
