"""Binary Classifier Optimisation, on pairs (Jung et al. 2024, arXiv:2404.04656).

A binary classifier separates chosen from rejected completions. Its logit is the implicit reward
minus a shift, the running mean of the rewards of both.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import LossAndMetrics, PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def bco_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    delta: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """``-log sigmoid(r_w - delta) - log sigmoid(delta - r_l)``, ``r = beta log-ratio``.

    All inputs but ``delta``, a single number, are ``[B]`` summed completion log-probs in nats;
    losses are ``[B]``. No gradient flows into ``delta``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    delta = delta.detach()
    losses = -F.logsigmoid(chosen - delta) - F.logsigmoid(delta - rejected)
    return PairLoss(losses, chosen.detach(), rejected.detach())


class BCO(PairObjective):
    """Classify chosen against rejected completions by their log-ratios.

    The shift ``delta`` comes from the earlier optimizer steps, over all their micro-batches and
    processes (0 at the first step, where the policy is the reference), so it does not depend on how
    a step is cut. Other arguments are as in ``DPO``.

    Args:
        delta_decay: Weight of a step's rewards in ``delta`` relative to those of the step after it,
            in [0, 1]: 1 is the mean over all steps so far, 0 that of the last one.
    """

    delta_sums: Tensor

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.01,
        delta_decay: float = 1.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.delta_decay = checked(self, "delta_decay", delta_decay, "in [0, 1]")
        self.register_buffer("delta_sums", torch.zeros(2, dtype=torch.float64))  # and count

    @property
    def delta(self) -> Tensor:
        """The mean reward before this step."""
        total, count = self.delta_sums
        return total / count.clamp(min=1)

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        delta = self.delta.to(scores.logps)
        return bco_loss(*self.four_logps(trees, scores), delta, beta=self.beta)

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """One loss per pair."""
        losses, means = super().losses(trees)
        return losses, {**means, "delta": self.delta.float()}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Add this step's rewards to ``delta``, which the next step uses."""
        chosen, rejected = (self._step[f"rewards/{side}"].sums for side in ("chosen", "rejected"))
        step = (chosen + rejected).to(self.device)
        step = self.trainer.strategy.reduce(step, reduce_op="sum")
        if bool(torch.isfinite(step).all()):  # else NonFinite stops here, or skips the step
            self.delta_sums.mul_(self.delta_decay).add_(step)
        super().on_before_optimizer_step(optimizer)
