"""Pairwise reward model: Bradley-Terry on scores (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1).

Two options: a margin between a pair's scores (Touvron et al. 2023, arXiv:2307.09288, Eq. 2), and a
penalty that pulls scores to zero (Eisenstein et al. 2023, arXiv:2312.09244).
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import PreferencePair
from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import ScoreModel
from alignlab.objectives.base import LossAndMetrics, PairLoss, require_pairs, split_pairs
from alignlab.objectives.metrics import Metric
from alignlab.objectives.rankings import calibration_metric, ranking_means
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.scored import ScoreObjective
from alignlab.objectives.settings import checked


def rm_loss(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    *,
    margin: Tensor | float | None = None,
    centre_coef: float = 0.0,
) -> PairLoss:
    """Negative log-probability that ``chosen`` is preferred: ``-log sigmoid(chosen - rejected)``.

    Args:
        chosen_scores: ``[B]``.
        rejected_scores: ``[B]``.
        margin: Subtracted from the difference; ``[B]`` or one number.
        centre_coef: Adds this times ``(chosen + rejected)^2``, so that scores, which the pairs
            leave free up to a constant for each prompt, settle around 0.
    """
    shifted = chosen_scores if margin is None else chosen_scores - margin
    losses = bradley_terry(shifted, rejected_scores)
    losses = losses + centre_coef * (chosen_scores + rejected_scores).square()
    return PairLoss(losses, chosen_scores.detach(), rejected_scores.detach())


class RewardModel(ScoreObjective):
    """Fit a scorer to preference pairs; scores are read at the last real token.

    If pairs have a ``margin``, the loss requires it; a pair without one has margin 0.

    Args:
        model: The scorer to train, usually started from the SFT policy.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
        centre_coef: Strength of the pull of scores to 0; 0.01 is usual, 0 is the plain loss.
        margin_scale: Factor from the unit of the data's margins to that of scores; 0 ignores them.

    Raises:
        ConfigError: A negative ``centre_coef`` or ``margin_scale``.
    """

    unit = "prompts"
    rows = (PreferencePair,)
    margins = True

    def __init__(
        self,
        model: ScoreModel,
        optimizer: OptimizerCallable,
        schedule: Schedule | None = None,
        centre_coef: float = 0.0,
        margin_scale: float = 1.0,
    ) -> None:
        super().__init__(model, optimizer, schedule)
        self.centre_coef = checked(self, "centre_coef", centre_coef, ">= 0")
        self.margin_scale = checked(self, "margin_scale", margin_scale, ">= 0")

    def score_loss_and_metrics(self, trees: PromptTrees, scores: Tensor) -> LossAndMetrics:
        """One loss per pair."""
        if not self.knows_rows:
            require_pairs(trees)
        margin = None if trees.labels is None else self.margin_scale * split_pairs(trees.labels)[0]
        losses = rm_loss(*split_pairs(scores), margin=margin, centre_coef=self.centre_coef).losses
        return losses, ranking_means(losses, scores, trees.group, _ranks(trees))

    def score_metrics(self, trees: PromptTrees, scores: Tensor) -> dict[str, Metric]:
        """Calibration beside the metrics of every scorer."""
        calibration = calibration_metric(scores, trees.group, _ranks(trees))
        return super().score_metrics(trees, scores) | calibration


def _ranks(trees: PromptTrees) -> Tensor:
    """The chosen one first; a pair's labels are its margin."""
    return torch.arange(len(trees.group), device=trees.group.device) % 2
