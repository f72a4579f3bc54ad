"""Reward model from rankings: all pairs of a prompt at once (Ouyang et al. 2022, arXiv:2203.02155).

Equation 1 with K completions a prompt. The C(K, 2) pairs are one batch element and each completion
goes through the model once. Shuffled into the data as single pairs they would meet it K - 1 times
an epoch, and the paper saw such a model overfit within one.
"""

from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import kwise_ranking
from alignlab.objectives.rankings import RankingObjective


def kwise_rm_loss(scores: Tensor, group: Tensor, rank: Tensor) -> Tensor:
    """Mean Bradley-Terry loss of a prompt's untied pairs, one loss per prompt in group order.

    Without ties each pair weighs ``1 / C(K, 2)``; with two completions it is ``rm_loss``.

    Args:
        scores: ``[M]``.
        group: ``[M]`` long, which prompt.
        rank: ``[M]`` long, 0 is best; equal ranks are a tie and never compared.
    """
    return kwise_ranking(scores, group, rank)


class KWiseRewardModel(RankingObjective):
    """Fit a scorer to rankings of K completions, every prompt with equal weight."""

    def order_losses(self, trees: PromptTrees, scores: Tensor) -> Tensor:
        """One loss per prompt."""
        return kwise_rm_loss(scores, trees.group, self.ranks(trees))
