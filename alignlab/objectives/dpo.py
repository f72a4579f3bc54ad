"""Direct Preference Optimization (Rafailov et al. 2023, arXiv:2305.18290, Eq. 7).

With ``label_smoothing`` it is conservative DPO (Mitchell 2023, "A note on DPO with noisy
preferences"), with ``nll_coef`` the loss of Pang et al. 2024 (arXiv:2404.19733, Eq. 1).
"""

import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


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


class DPO(PairObjective):
    """Fit a policy to preference pairs against a fixed reference.

    Args:
        policy: The language model to train; its initial state is also the reference.
        optimizer: Builds the optimizer.
        beta: Strength of the KL constraint, > 0. Smaller lets the policy drift further; 0.01-0.5
            is usual on human labels.
        label_smoothing: Assumed share of flipped labels, in [0, 0.5).
        nll_coef: Weight of the chosen completion's negative log-likelihood per token, >= 0. It
            keeps the chosen completion likely, where DPO alone may lower both.
        reference: ``frozen`` copy, ``adapter_off`` (needs new LoRA), ``cached`` log-probs on disk,
            or ``auto``: no second model where only adapters are trained, else a frozen copy.
        reference_cache: Folder of cached log-probs, for ``cached``.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: A number out of its range, or ``cached`` without a folder.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        nll_coef: float = 0.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.label_smoothing = checked(self, "label_smoothing", label_smoothing, "in [0, 0.5)")
        self.nll_coef = checked(self, "nll_coef", nll_coef, ">= 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 7 on the batch."""
        loss = dpo_loss(
            *self.four_logps(trees, scores), beta=self.beta, label_smoothing=self.label_smoothing
        )
        if not self.nll_coef:
            return loss
        chosen_nll = -split_pairs(scores.logps / scores.lengths)[0]
        return loss._replace(losses=loss.losses + self.nll_coef * chosen_nll)
