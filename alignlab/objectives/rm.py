"""Pairwise reward model: Bradley-Terry on scores (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1)."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import ScoreModel
from alignlab.objectives.base import Objective, finite
from alignlab.objectives.pairs import PairLoss, accuracy, both
from alignlab.objectives.schedule import Schedule


def rm_loss(
    chosen_scores: Tensor, rejected_scores: Tensor, *, margin: Tensor | float | None = None
) -> PairLoss:
    """Negative log-probability that ``chosen`` is preferred: ``-log sigmoid(chosen - rejected)``.

    Args:
        chosen_scores: ``[B]``.
        rejected_scores: ``[B]``.
        margin: Subtracted from the difference (Touvron et al. 2023, arXiv:2307.09288, Eq. 2).
    """
    shifted = chosen_scores if margin is None else chosen_scores - margin
    losses = bradley_terry(shifted, rejected_scores)
    return PairLoss(losses, chosen_scores.detach(), rejected_scores.detach())


class RewardModel(Objective):
    """Fit a scorer to preference pairs; scores are read at the last real token.

    Args:
        model: The scorer to train, usually started from the SFT policy.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model = model

    @property
    def tokenizer(self) -> Any:
        """The scorer's."""
        return self.model.tokenizer

    def training_step(self, trees: PromptTrees, batch_idx: int) -> Tensor:
        """Summed pair losses over the step's pairs."""
        loss, means = self._pairs(trees)
        self.log_means("train", means, trees.totals)
        return self.normalised(loss.losses.sum(), trees.totals.prompts)

    def validation_step(self, trees: PromptTrees, batch_idx: int) -> None:
        """Loss, accuracy and margin on held-out pairs."""
        with torch.no_grad():
            _, means = self._pairs(trees)
        self.log_means("val", means, trees.totals)

    def save(self, path: Path) -> None:
        """Write the scorer's folder."""
        self.model.save(path)

    def _pairs(self, trees: PromptTrees) -> tuple[PairLoss, dict[str, Tensor]]:
        chosen, rejected = both(self.model.scores(trees))
        loss = rm_loss(chosen, rejected)
        finite(loss.losses, trees.ids)
        margins = loss.chosen_rewards - loss.rejected_rewards
        return loss, {
            "loss": loss.losses.mean(),
            "accuracy": accuracy(margins),
            "margin": margins.mean(),
            "score": (loss.chosen_rewards + loss.rejected_rewards).mean() / 2,
        }
