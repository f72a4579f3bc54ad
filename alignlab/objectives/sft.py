"""Supervised fine-tuning and language modelling: maximum likelihood of demonstrated tokens.

InstructGPT's first step (Ouyang et al. 2022, arXiv:2203.02155, section 3.5). Language modelling is
the same objective on trees whose prompt is only the beginning-of-text token.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import Policy
from alignlab.objectives.base import Objective
from alignlab.objectives.schedule import Schedule


def sft_loss(token_logps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the tokens under the mask, as (sum, count).

    Args:
        token_logps: ``[M, T]`` log-probs in nats; cells outside the mask never matter.
        mask: ``[M, T]`` bool, tokens that are trained on.
    """
    return -token_logps.masked_fill(~mask, 0).sum(), mask.sum()


class SFT(Objective):
    """Fit a language model to demonstrations, every counted token with equal weight.

    Args:
        policy: The language model to train.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self, policy: Policy, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.policy = policy

    @property
    def tokenizer(self) -> Any:
        """The policy's."""
        return self.policy.tokenizer

    def training_step(self, trees: PromptTrees, batch_idx: int) -> Tensor:
        """Summed loss over the step's token count."""
        total, count = sft_loss(self.policy(trees).token_logps, trees.loss_mask)
        self.log_means("train", {"loss": total / count.clamp(min=1)}, trees.totals)
        return self.normalised(total, trees.totals.tokens)

    def validation_step(self, trees: PromptTrees, batch_idx: int) -> None:
        """Nats per token, weighted by tokens."""
        with torch.no_grad():
            total, count = sft_loss(self.policy(trees).token_logps, trees.loss_mask)
        self.log("val/loss", total / count.clamp(min=1), batch_size=int(count), sync_dist=True)

    def save(self, path: Path) -> None:
        """Write the policy's folder."""
        self.policy.save(path)
