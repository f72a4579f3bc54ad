"""Anchored Preference Optimisation (D'Oosterlinck et al. 2024, arXiv:2408.06266, Eq. 7 and 8).

The loss sets the direction in which each likelihood moves, not only their difference.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def apo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    raise_chosen: bool,
) -> PairLoss:
    """APO-zero, ``sigmoid(-s_w) + sigmoid(s_l)`` with ``s = beta log-ratio``, or APO-down.

    With ``raise_chosen`` chosen goes up and rejected down; without (APO-down) both go down, and
    rejected further: ``sigmoid(s_w) + sigmoid(s_l - s_w)``. All inputs are ``[B]`` summed
    completion log-probs in nats; losses are ``[B]``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    if raise_chosen:
        losses = (-chosen).sigmoid() + rejected.sigmoid()
    else:
        losses = chosen.sigmoid() + (rejected - chosen).sigmoid()
    return PairLoss(losses, chosen.detach(), rejected.detach())


class APO(PairObjective):
    """Move the likelihoods of chosen and of rejected completions in set directions.

    Other arguments are as in ``DPO``.

    Args:
        raise_chosen: Make chosen completions likelier (APO-zero); for pairs whose chosen completion
            is better than what the policy writes itself. If it is worse, False makes both
            completions less likely (APO-down).
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        raise_chosen: bool = True,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.raise_chosen = raise_chosen

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        logps = self.four_logps(trees, scores)
        return apo_loss(*logps, beta=self.beta, raise_chosen=self.raise_chosen)
