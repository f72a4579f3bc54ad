"""DPO with another divergence than the reverse KL (Wang et al. 2023, arXiv:2309.16240).

With ``ChiSquaredKL`` it is chi-squared preference optimisation (Huang et al. 2024,
arXiv:2407.13399, Algorithm 1).
"""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional.divergences import Divergence
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def f_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    divergence: Divergence,
    max_margin: float | None = None,
) -> PairLoss:
    """``-log sigmoid(beta f'(u_w) - beta f'(u_l))``, ``u`` the ratio of policy to reference.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``. Rewards are
    ``beta f'(u)``, 0 where ``u`` is 1. Margins are clipped to ``+-max_margin``.
    """
    chosen = beta * divergence.slope(policy_chosen_logps - ref_chosen_logps)
    rejected = beta * divergence.slope(policy_rejected_logps - ref_rejected_logps)
    margins = chosen - rejected
    if max_margin is not None:
        margins = margins.clamp(-max_margin, max_margin)
    return PairLoss(-F.logsigmoid(margins), chosen.detach(), rejected.detach())


class FDPO(PairObjective):
    """Fit a policy to preference pairs under an f-divergence from its reference.

    Other arguments are as in ``DPO``.

    Args:
        divergence: An object of ``alignlab.functional.divergences``: ``ForwardKL``,
            ``JensenShannon``, ``Alpha``, ``ChiSquaredKL``, or ``ReverseKL``, which is DPO.
        beta: Strength of the divergence, > 0. Smaller lets the policy drift further.
        max_margin: Largest reward margin that a pair can teach, > 0; beyond it, on either side, a
            pair has no gradient. Chi-PO's is twice the largest reward. Left out, none is clipped.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        divergence: Divergence,
        beta: float = 0.1,
        max_margin: float | None = None,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.divergence = divergence
        self.beta = checked(self, "beta", beta, "> 0")
        self.max_margin = checked(self, "max_margin", max_margin, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return f_dpo_loss(
            *self.four_logps(trees, scores),
            beta=self.beta,
            divergence=self.divergence,
            max_margin=self.max_margin,
        )
