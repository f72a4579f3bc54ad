"""Reward model from ratings: least squares (HelpSteer2, Wang et al. 2024, arXiv:2406.08673)."""

from torch import Tensor

from alignlab.data.rows import LabelledText, RatedCompletion
from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import Metric, correlation
from alignlab.objectives.scored import ScoreObjective


def regression_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Squared error of each completion, ``[M]``, in squared units of the ratings.

    Args:
        scores: ``[M]``.
        ratings: ``[M]``.
    """
    return (scores - ratings).square()


class Regression(ScoreObjective):
    """Fit a scorer to ratings of single completions, so that its scores are in their unit.

    Validation adds ``val/rating_correlation``, Pearson's of score and rating.
    """

    unit = "completions"
    rows = (RatedCompletion, LabelledText)

    def score_loss_and_metrics(self, trees: PromptTrees, scores: Tensor) -> LossAndMetrics:
        """One loss per completion."""
        losses = regression_loss(scores, _ratings(trees).to(scores.dtype))
        return losses, {"loss": losses.mean(), "score": scores.mean()}

    def score_metrics(self, trees: PromptTrees, scores: Tensor) -> dict[str, Metric]:
        """Correlation with the ratings beside the metrics of every scorer."""
        agreement = correlation(scores, _ratings(trees))
        return super().score_metrics(trees, scores) | {"rating_correlation": agreement}


def _ratings(trees: PromptTrees) -> Tensor:
    if trees.labels is None:
        raise DataError("regression needs ratings. Use RatingData, or another objective.")
    return trees.labels
