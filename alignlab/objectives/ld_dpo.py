"""Length-desensitised DPO, LD-DPO (Liu et al. 2024, arXiv:2409.06411).

Tokens of the longer completion beyond the shorter one's length are weighted by a factor.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def ld_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_tails: Tensor,
    rejected_tails: Tensor,
    *,
    beta: float,
    alpha: float,
) -> PairLoss:
    """DPO's loss with the tokens beyond the shorter completion's length multiplied by ``alpha``.

    Log-probs are ``[B]``, summed over whole completions, in nats; tails ``[B]`` are the log-ratios
    of the tokens beyond, of which a pair has at most one that is not 0. Rewards are those of the
    discounted completions.
    """
    chosen = policy_chosen_logps - ref_chosen_logps - (1 - alpha) * chosen_tails
    rejected = policy_rejected_logps - ref_rejected_logps - (1 - alpha) * rejected_tails
    chosen, rejected = beta * chosen, beta * rejected
    return PairLoss(bradley_terry(chosen, rejected), chosen.detach(), rejected.detach())


class LDDPO(PairObjective):
    """DPO that gives less weight to tokens beyond the shorter completion's length.

    Other arguments are as in ``DPO``.

    Args:
        alpha: Factor on these tokens' log-probs, in [0, 1], of policy and reference; 1 is DPO.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        alpha: float = 0.5,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.alpha = checked(self, "alpha", alpha, "in [0, 1]")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        ref = self.reference.token_logps(trees)
        shorter = torch.minimum(*split_pairs(scores.lengths)).repeat_interleave(2)
        beyond = scores.mask.cumsum(1) > shorter[:, None]
        tails = ((scores.token_logps - ref) * beyond).sum(1)
        four = *split_pairs(scores.logps), *split_pairs(ref.sum(1))
        return ld_dpo_loss(*four, *split_pairs(tails), beta=self.beta, alpha=self.alpha)
