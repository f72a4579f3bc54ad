"""Length-normalised DPO (Lambert et al. 2024, Tulu 3, arXiv:2411.15124, section 5.1.2)."""

from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Scores
from alignlab.objectives.pairs import PairLoss, both
from alignlab.objectives.referenced import ReferencedPairObjective


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


class LNDPO(ReferencedPairObjective):
    """DPO in which a completion's reward is its mean log-ratio, so that length earns nothing.

    ``beta`` is DPO's times a completion's length: 2-10 is usual. Arguments are those of
    ``ReferencedPairObjective``.
    """

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return lndpo_loss(*self.four_logps(trees, scores), *both(scores.lengths), beta=self.beta)
