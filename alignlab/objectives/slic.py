"""SLiC-HF: a margin on log-probs, and imitation (Zhao et al. 2023, arXiv:2305.10425, Eq. 3).

The paper's regulariser imitates a target that may be a third text; here it is the chosen one.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, Scores
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def slic_loss(
    policy_chosen_logps: Tensor, policy_rejected_logps: Tensor, *, delta: float, lam: float
) -> PairLoss:
    """``max(0, delta - chosen + rejected) - lam * chosen`` on summed log-probs.

    All inputs are ``[B]`` in nats; losses are ``[B]``. The rewards are the log-probs themselves.
    """
    short = delta - policy_chosen_logps + policy_rejected_logps
    losses = short.relu() - lam * policy_chosen_logps
    return PairLoss(losses, policy_chosen_logps.detach(), policy_rejected_logps.detach())


class SLiC(PairObjective):
    """Ask a margin of ``delta`` nats of every pair and imitate the chosen one.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        delta: The margin in nats, > 0; larger drifts further.
        lam: Weight of the chosen completion's negative log-likelihood, >= 0.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        delta: float = 1.0,
        lam: float = 0.1,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.delta = checked(self, "delta", delta, "> 0")
        self.lam = checked(self, "lam", lam, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 3 on the batch."""
        return slic_loss(*split_pairs(scores.logps), delta=self.delta, lam=self.lam)
