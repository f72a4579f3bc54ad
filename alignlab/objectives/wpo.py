"""Weighted preference optimisation (Zhou et al. 2024, arXiv:2406.11827, Eq. 2).

DPO with each pair weighted by how likely the current policy is to write its completions, so that
offline pairs count as if they were drawn from the policy.
"""

import math

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def wpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_log_weights: Tensor,
    rejected_log_weights: Tensor,
    *,
    beta: float,
    cap: float = math.inf,
) -> PairLoss:
    """DPO's loss times the weights of both completions, at most ``cap``; weights have no gradient.

    Log-probs are ``[B]``, summed over completions, in nats. A log-weight ``[B]`` is the mean over a
    completion's tokens of ``log pi(y_t) - log sum_v pi(v)^2`` under the current policy, so that a
    policy's own sample has a weight near 1 whether its distributions are sharp or flat.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    log_weights = (chosen_log_weights + rejected_log_weights).detach()
    weights = log_weights.clamp(max=math.log(cap)).exp()
    return PairLoss(weights * bradley_terry(chosen, rejected), chosen.detach(), rejected.detach())


class WPO(PairObjective):
    """DPO on pairs that are weighted by how likely the current policy is to write them.

    Other arguments are as in ``DPO``.

    Args:
        cap: Largest weight of a pair, > 0; ``.inf`` for none. 1 is the paper's code.
    """

    want = ("log_squares",)

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        cap: float = 1.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.cap = checked(self, "cap", cap, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 2 on the batch."""
        assert scores.log_squares is not None
        log_weights = (scores.token_logps - scores.log_squares).sum(1) / scores.lengths
        four = self.four_logps(trees, scores)
        return wpo_loss(*four, *split_pairs(log_weights), beta=self.beta, cap=self.cap)
