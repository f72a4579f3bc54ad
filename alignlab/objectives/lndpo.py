"""Length-normalised DPO (Lambert et al. 2024, Tulu 3, arXiv:2411.15124, section 5.1.2)."""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def lndpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """DPO with log-ratios per token: ``-log sigmoid(beta * (ratio_w / |w| - ratio_l / |l|))``.

    Log-probs are ``[B]``, summed over completions, in nats; lengths ``[B]`` in tokens.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps) / chosen_lengths
    rejected = beta * (policy_rejected_logps - ref_rejected_logps) / rejected_lengths
    return PairLoss(bradley_terry(chosen, rejected), chosen.detach(), rejected.detach())


class LNDPO(PairObjective):
    """DPO in which a completion's reward is its mean log-ratio, so that length earns nothing.

    Other arguments are as in ``DPO``.

    Args:
        beta: > 0; corresponds to DPO's times a completion's length: 2-10 is usual, 5 in Tulu 3.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 5.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        logps, lengths = self.four_logps(trees, scores), split_pairs(scores.lengths)
        return lndpo_loss(*logps, *lengths, beta=self.beta)
