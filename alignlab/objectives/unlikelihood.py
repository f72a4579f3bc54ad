"""Unlikelihood: raise the chosen completion's log-probability, lower the rejected one's.

The baseline of the DPO paper (Rafailov et al. 2023, arXiv:2305.18290, section 6 and appendix C.3),
named after unlikelihood training (Welleck et al. 2019, arXiv:1908.04319), from which it differs:
that one maximises ``log(1 - p)`` token by token and is bounded, this one minimises ``log p`` of the
whole completion and is not.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, Scores
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def unlikelihood_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, *, alpha: float
) -> PairLoss:
    """``-log p(chosen) + alpha * log p(rejected)``; no lower bound for ``alpha`` > 0.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``. There is no
    reference: the rewards are the log-probs themselves.
    """
    losses = alpha * policy_rejected_logps - policy_chosen_logps
    return PairLoss(losses, policy_chosen_logps.detach(), policy_rejected_logps.detach())


class Unlikelihood(PairObjective):
    """Imitate the chosen completions and unlearn the rejected ones, without a reference.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        alpha: Weight of the rejected completion, in [0, 1]. At 0 only the chosen ones are
            imitated (preferred-FT); the closer to 1, the faster the policy drifts, without end.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``alpha`` out of range.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        alpha: float = 0.5,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.alpha = checked(self, "alpha", alpha, "in [0, 1]")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return unlikelihood_loss(*split_pairs(scores.logps), alpha=self.alpha)
