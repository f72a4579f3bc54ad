"""Direct Preference Optimization (Rafailov et al. 2023, arXiv:2305.18290, Eq. 7)."""

from typing import Literal

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import Policy, Scores
from alignlab.objectives.pairs import PairLoss, both
from alignlab.objectives.referenced import ReferencedPairObjective
from alignlab.objectives.schedule import Schedule


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> PairLoss:
    """Negative log-likelihood that ``chosen`` beats ``rejected`` under the implicit reward.

    The implicit reward is ``beta * log(policy / reference)`` (Eq. 5 up to a constant of the
    prompt). All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``.
    ``label_smoothing`` mixes in the flipped label (conservative DPO); 0 is the paper's loss.
    """
    chosen_rewards = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected_rewards = beta * (policy_rejected_logps - ref_rejected_logps)
    margins = chosen_rewards - rejected_rewards
    kept, flipped = F.logsigmoid(margins), F.logsigmoid(-margins)
    losses = -(1 - label_smoothing) * kept - label_smoothing * flipped
    return PairLoss(losses, chosen_rewards.detach(), rejected_rewards.detach())


class DPO(ReferencedPairObjective):
    """Fit a policy to preference pairs against a fixed reference.

    Args:
        policy: The language model to train; as it is now, it is also the reference.
        optimizer: Builds the optimizer.
        beta: Strength of the KL constraint, > 0. Smaller lets the policy drift further; 0.01-0.5
            is usual on human labels.
        label_smoothing: Assumed share of flipped labels, in [0, 0.5).
        reference: ``frozen`` copy, ``adapter_off`` (needs LoRA), ``cached`` log-probs on disk, or
            ``auto``: adapter off where there are adapters, else a frozen copy.
        reference_cache: Folder of cached log-probs, for ``cached``.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``beta`` or ``label_smoothing`` out of range.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        reference: Literal["auto", "frozen", "adapter_off", "cached"] = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        if beta <= 0:
            raise ConfigError(f"DPO needs beta > 0, got {beta}. Set model.init_args.beta.")
        if not 0 <= label_smoothing < 0.5:
            raise ConfigError(
                f"DPO needs label_smoothing in [0, 0.5), got {label_smoothing}. "
                "Set model.init_args.label_smoothing."
            )
        super().__init__(policy, optimizer, reference, reference_cache, schedule)
        self.beta, self.label_smoothing = beta, label_smoothing

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 7 on the batch."""
        return dpo_loss(
            *both(scores.logps),
            *both(self.reference_logps(trees)),
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )
