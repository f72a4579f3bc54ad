"""Provably robust DPO (Ray Chowdhury et al. 2024, arXiv:2403.00409, Eq. 12).

Labels are flipped at a known rate; the loss is weighted so that its expectation over the flips is
DPO's loss on the true labels.
"""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def robust_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> PairLoss:
    """``((1 - e) * L(chosen, rejected) - e * L(rejected, chosen)) / (1 - 2 e)``, L DPO's loss.

    ``e`` is ``label_smoothing``, the rate of flips. All inputs are ``[B]`` summed log-probs in
    nats; losses are ``[B]``. A single pair's loss has no lower bound where ``e > 0``.

    Raises:
        ConfigError: The rate is not in [0, 0.5); at one half, labels carry no information.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}.")
    chosen_rewards = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - ref_rejected_logps)
    margins = chosen_rewards - rejected_rewards
    kept, flipped = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    losses = (1 - label_smoothing) * kept - label_smoothing * flipped
    losses = losses / (1 - 2 * label_smoothing)
    return PairLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


class RobustDPO(PairObjective):
    """Fit a policy to preference pairs of which a known share has flipped labels.

    The loss of a pair has no lower bound: it keeps falling as the pair's margin grows, the faster
    the larger that share. Other arguments are as in ``DPO``.

    Args:
        label_smoothing: Share of flipped labels, in [0, 0.5).
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.label_smoothing = checked(self, "label_smoothing", label_smoothing, "in [0, 0.5)")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 12 on the batch."""
        logps = self.four_logps(trees, scores)
        return robust_dpo_loss(*logps, beta=self.beta, label_smoothing=self.label_smoothing)
