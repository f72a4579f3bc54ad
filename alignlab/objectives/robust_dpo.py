"""Provably robust DPO (Ray Chowdhury et al. 2024, arXiv:2403.00409, Eq. 12).

Labels are flipped at a known rate; the loss is weighted so that its mean over the flips is the loss
without them.
"""

import torch.nn.functional as F
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import Scores
from alignlab.objectives.pairs import PairLoss
from alignlab.objectives.referenced import NoisyPairObjective


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
        ConfigError: A rate of one half or more, at which labels say nothing.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}.")
    chosen_rewards = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - ref_rejected_logps)
    margins = chosen_rewards - rejected_rewards
    as_told, flipped = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    losses = (1 - label_smoothing) * as_told - label_smoothing * flipped
    losses = losses / (1 - 2 * label_smoothing)
    return PairLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


class RobustDPO(NoisyPairObjective):
    """Fit a policy to preference pairs of which a known share is labelled the wrong way round.

    ``label_smoothing`` is that share: the larger, the faster the loss of a pair falls, without end,
    as its margin falls. Arguments are those of ``NoisyPairObjective``.
    """

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 12 on the batch."""
        logps = self.four_logps(trees, scores)
        return robust_dpo_loss(*logps, beta=self.beta, label_smoothing=self.label_smoothing)
