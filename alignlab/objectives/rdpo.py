"""Length-regularised DPO, R-DPO (Park et al. 2024, arXiv:2403.19159, Eq. 9).

The sign of the length term is plus. Maximising ``E[r] - alpha E|y| - beta KL`` gives
``pi = pi_ref * exp((r - alpha |y|) / beta) / Z``, so ``r = beta log(pi / pi_ref) + alpha |y| + beta
log Z``, and the pair's Bradley-Terry model is ``sigmoid(beta * h + alpha * (|chosen| -
|rejected|))``. If the chosen completion is longer, its length explains part of the label, and the
policy learns less from it.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def rdpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
    alpha: float,
) -> PairLoss:
    """``-log sigmoid(beta * h + alpha * (|chosen| - |rejected|))``, ``h`` the log-ratio margin.

    Log-probs are ``[B]``, summed over completions, in nats; lengths ``[B]`` in tokens. The rewards
    are ``beta`` times log-ratios, without the length.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    losses = bradley_terry(chosen + alpha * chosen_lengths, rejected + alpha * rejected_lengths)
    return PairLoss(losses, chosen.detach(), rejected.detach())


class RDPO(PairObjective):
    """DPO for an objective that charges ``alpha`` for each token of a completion.

    Other arguments are as in ``DPO``.

    Args:
        beta: Strength of the KL constraint, > 0, as in DPO.
        alpha: Price of a token in units of the reward, >= 0; larger makes completions shorter.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        alpha: float = 0.05,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.alpha = checked(self, "alpha", alpha, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 9 on the batch."""
        logps, lengths = self.four_logps(trees, scores), split_pairs(scores.lengths)
        return rdpo_loss(*logps, *lengths, beta=self.beta, alpha=self.alpha)
