"""Reward model from rankings: all pairs of a prompt at once (Ouyang et al. 2022, arXiv:2203.02155).

Equation 1 with K completions a prompt. The C(K, 2) pairs are one batch element, and each completion
goes through the model once. If the pairs were shuffled as single rows, the model would see each
completion K - 1 times an epoch; the paper saw such a model overfit within one epoch.
"""

from torch import Tensor

from alignlab.data.rows import Ranking
from alignlab.data.trees import PromptTrees
from alignlab.functional import kwise_ranking
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import Metric
from alignlab.objectives.rankings import calibration_metric, ranking_means, ranks
from alignlab.objectives.scored import ScoreObjective


def kwise_rm_loss(scores: Tensor, group: Tensor, rank: Tensor) -> Tensor:
    """Mean Bradley-Terry loss of a prompt's untied pairs, one loss per prompt in group order.

    Without ties each pair weighs ``1 / C(K, 2)``; with two completions it is ``rm_loss``.

    Args:
        scores: ``[M]``.
        group: ``[M]`` long, which prompt.
        rank: ``[M]`` long, 0 is best; equal ranks are a tie and never compared.
    """
    return kwise_ranking(scores, group, rank)


class KWiseRewardModel(ScoreObjective):
    """Fit a scorer to rankings of K completions, every prompt with equal weight."""

    unit = "prompts"
    rows = (Ranking,)

    def score_loss_and_metrics(self, trees: PromptTrees, scores: Tensor) -> LossAndMetrics:
        """One loss per prompt."""
        rank = ranks(trees)
        losses = kwise_rm_loss(scores, trees.group, rank)
        return losses, ranking_means(losses, scores, trees.group, rank)

    def score_metrics(self, trees: PromptTrees, scores: Tensor) -> dict[str, Metric]:
        """Calibration beside the metrics of every scorer."""
        calibration = calibration_metric(scores, trees.group, ranks(trees))
        return super().score_metrics(trees, scores) | calibration
