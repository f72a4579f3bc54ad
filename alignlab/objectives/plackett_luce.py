"""Reward model from rankings: Plackett-Luce (Rafailov et al. 2023, arXiv:2305.18290, App. A.3).

The likelihood of the whole order: the best is chosen among all, the next among the rest, and so
on. Any two completions then compare as in Bradley-Terry, so ``kwise_rm`` has the same optimum on
such orders, although it treats the pairs of an order as separate judgements.
"""

from torch import Tensor

from alignlab.data.rows import Ranking
from alignlab.data.trees import PromptTrees
from alignlab.functional import plackett_luce
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import Metric
from alignlab.objectives.rankings import calibration_metric, ranking_means, ranks
from alignlab.objectives.scored import ScoreObjective


def plackett_luce_loss(scores: Tensor, group: Tensor, rank: Tensor) -> Tensor:
    """Negative log-likelihood of a prompt's ranking, one loss per prompt in group order.

    With two completions it is ``rm_loss``. It sums K - 1 choices where ``kwise_rm_loss`` takes a
    mean, so a ranking of more completions weighs more.

    Args:
        scores: ``[M]``.
        group: ``[M]`` long, which prompt.
        rank: ``[M]`` long, 0 is best. Tied completions are each chosen from themselves and those
            below, never compared with each other.
    """
    return plackett_luce(scores, group, rank)


class PlackettLuce(ScoreObjective):
    """Fit a scorer to rankings of K completions, every choice with equal weight."""

    unit = "prompts"
    rows = (Ranking,)

    def score_loss_and_metrics(self, trees: PromptTrees, scores: Tensor) -> LossAndMetrics:
        """One loss per prompt."""
        rank = ranks(trees)
        losses = plackett_luce_loss(scores, trees.group, rank)
        return losses, ranking_means(losses, scores, trees.group, rank)

    def score_metrics(self, trees: PromptTrees, scores: Tensor) -> dict[str, Metric]:
        """Calibration beside the metrics of every scorer."""
        calibration = calibration_metric(scores, trees.group, ranks(trees))
        return super().score_metrics(trees, scores) | calibration
