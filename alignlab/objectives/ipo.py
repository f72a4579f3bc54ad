"""Identity Preference Optimisation (Azar et al. 2023, arXiv:2310.12036, Eq. 17).

The log-ratio margin is regressed on ``1 / (2 tau)``, not pushed up without end as in DPO, so labels
without noise have a finite optimum.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    tau: float,
    lengths: tuple[Tensor, Tensor] | None = None,
) -> PairLoss:
    """``(h - 1 / (2 tau))^2``, ``h`` the log-ratio of ``chosen`` less that of ``rejected``.

    Log-probs are ``[B]``, summed over completions, in nats. With ``lengths``, the tokens of chosen
    and rejected ``[B]``, log-ratios are means per token. Rewards are ``tau`` times log-ratios.
    """
    chosen = policy_chosen_logps - ref_chosen_logps
    rejected = policy_rejected_logps - ref_rejected_logps
    if lengths is not None:
        chosen, rejected = chosen / lengths[0], rejected / lengths[1]
    losses = (chosen - rejected - 1 / (2 * tau)).square()
    return PairLoss(losses, tau * chosen.detach(), tau * rejected.detach())


class IPO(PairObjective):
    """Regress the log-ratio margin of preference pairs on a fixed target.

    Other arguments are as in ``DPO``.

    Args:
        tau: Strength of the KL constraint, > 0; smaller asks for a larger margin.
        per_token: Average log-ratios over a completion's tokens, as HALOs and, on the authors'
            advice, TRL do; otherwise sum them, as Eq. 17 and the DPO paper's code do. With means,
            ``tau`` must be larger by the factor of a completion's length.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        tau: float = 0.1,
        per_token: bool = True,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.tau = checked(self, "tau", tau, "> 0")
        self.per_token = per_token

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 17 on the batch."""
        lengths = split_pairs(scores.lengths) if self.per_token else None
        return ipo_loss(*self.four_logps(trees, scores), tau=self.tau, lengths=lengths)
