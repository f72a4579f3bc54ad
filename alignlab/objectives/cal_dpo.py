"""Cal-DPO (Xiao et al. 2024, arXiv:2412.14516): a contrast, and a target for each log-ratio.

DPO's loss depends only on the difference of two log-ratios; the targets fix each of them.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def cal_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    cal_coef: float = 1.0,
) -> PairLoss:
    """``-log sigmoid(w - l) + cal_coef * ((w - 1 / (2 beta))^2 + (l + 1 / (2 beta))^2)``.

    ``w`` and ``l`` are the log-ratios of chosen and rejected, without ``beta``. All inputs are
    ``[B]`` summed completion log-probs in nats; losses are ``[B]``, rewards ``beta`` times ratios.
    """
    chosen = policy_chosen_logps - ref_chosen_logps
    rejected = policy_rejected_logps - ref_rejected_logps
    target = 1 / (2 * beta)
    missed = (chosen - target).square() + (rejected + target).square()
    losses = bradley_terry(chosen, rejected) + cal_coef * missed
    return PairLoss(losses, beta * chosen.detach(), beta * rejected.detach())


class CalDPO(PairObjective):
    """Contrast the completions of each pair, and pull both log-ratios to fixed targets.

    Other arguments are as in ``DPO``.

    Args:
        beta: Strength of the KL constraint, > 0; the targets are ``1 / (2 beta)`` and its negative.
        cal_coef: Weight of the targets, >= 0: 1 in the paper's equation, 0.5 in its code.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        cal_coef: float = 1.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.cal_coef = checked(self, "cal_coef", cal_coef, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        logps = self.four_logps(trees, scores)
        return cal_dpo_loss(*logps, beta=self.beta, cal_coef=self.cal_coef)
