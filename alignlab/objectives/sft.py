"""Supervised fine-tuning and language modelling: maximum likelihood of demonstrated tokens.

InstructGPT's first step (Ouyang et al. 2022, arXiv:2203.02155, section 3.5). Language modelling is
the same objective on trees whose prompt is only the beginning-of-text token.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import Demonstration, LabelledText
from alignlab.data.trees import PromptTrees
from alignlab.models import Policy
from alignlab.objectives.base import LossAndMetrics, TreeObjective
from alignlab.objectives.schedule import Schedule


def sft_loss(token_logps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the tokens under the mask, as (sum, count).

    Args:
        token_logps: ``[M, T]`` log-probs in nats; cells outside the mask never matter.
        mask: ``[M, T]``, which cells are tokens that are trained on.
    """
    mask = mask.bool()
    return -token_logps.masked_fill(~mask, 0).sum(), mask.sum()


class SFT(TreeObjective):
    """Fit a language model to demonstrations, every counted token with equal weight.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    rows = (Demonstration, LabelledText)
    unit = "tokens"
    nats_per_token = True

    def __init__(
        self, policy: Policy, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.policy = policy

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """Summed negative log-likelihood, and nats per token."""
        total, count = sft_loss(self.policy(trees).token_logps, trees.loss_mask)
        return total, {"loss": total / count.clamp(min=1)}
