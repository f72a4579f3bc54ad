"""The step shared by objectives that fit a scorer to an order of a prompt's completions."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from alignlab.data.rows import Ranking, Row
from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.objectives.figures import Figure, calibration_error_of
from alignlab.objectives.scored import ScoreObjective


class RankingObjective(ScoreObjective):
    """Scores the completions of ranked prompts; a subclass says what an order costs.

    Logs ``accuracy`` (pairs whose better one scores higher, equal scores one half) and ``margin``
    (score of the better one less the worse one's), each the mean over prompts of the mean over a
    prompt's untied pairs. Validation adds ``val/calibration_error``.
    """

    unit = "prompts"
    rows: ClassVar[tuple[type[Row], ...]] = (Ranking,)

    def ranks(self, trees: PromptTrees) -> Tensor:
        """``[M]`` long, the rank of each completion in its prompt: 0 is best, equal is a tie.

        Raises:
            DataError: The data hold no ranks.
        """
        if trees.labels is None:
            raise DataError("a ranking loss needs ranks. Use RankingData, or another objective.")
        return trees.labels.long()

    @abstractmethod
    def order_losses(self, trees: PromptTrees, scores: Tensor) -> Tensor:
        """``[P]`` losses, one per prompt."""

    def score_losses(self, trees: PromptTrees, scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One loss per prompt."""
        losses = self.order_losses(trees, scores)
        margins, weights = untied_margins(scores.detach(), trees.group, self.ranks(trees))
        prompts = len(trees.prompt_lengths)
        sizes = torch.bincount(trees.group, minlength=prompts)
        return losses, {
            "loss": losses.mean(),
            "accuracy": (weights * (margins.sign() + 1) / 2).sum() / prompts,
            "margin": (weights * margins).sum() / prompts,
            "score": (scores.detach() / sizes[trees.group]).sum() / prompts,
        }

    def score_figures(self, trees: PromptTrees, scores: Tensor) -> dict[str, Figure]:
        """Calibration beside the figures of every scorer."""
        margins, weights = untied_margins(scores, trees.group, self.ranks(trees))
        error = calibration_error_of(margins, weights)
        return super().score_figures(trees, scores) | {"calibration_error": error}


def untied_margins(scores: Tensor, group: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Score of the better one less the worse one's, of every untied pair of a prompt, ``[N]``.

    Args:
        scores: ``[M]``.
        group: ``[M]`` long, which prompt.
        rank: ``[M]`` long, 0 is best.

    Returns:
        The margins and their weights ``[N]``: a prompt's weigh 1 together.
    """
    better, worse = torch.nonzero((group[:, None] == group) & (rank[:, None] < rank), as_tuple=True)
    pairs = torch.bincount(group[better])
    return scores[better] - scores[worse], 1 / pairs[group[better]].to(scores.dtype)
