"""Metrics of a scorer that is fitted to rankings of each prompt's completions.

``accuracy`` (pairs whose better one scores higher, equal scores one half) and ``margin`` (score of
the better one less the worse one's) are means over prompts of the mean over a prompt's untied
pairs. A validation adds a calibration error.
"""

import torch
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.objectives.metrics import Metric, calibration_error


def ranks(trees: PromptTrees) -> Tensor:
    """``[M]`` long, the rank of each completion in its prompt: 0 is best, equal is a tie.

    Raises:
        DataError: The data hold no ranks.
    """
    if trees.labels is None:
        raise DataError("a ranking loss needs ranks. Use RankingData, or another objective.")
    return trees.labels.long()


def ranking_means(losses: Tensor, scores: Tensor, group: Tensor, rank: Tensor) -> dict[str, Tensor]:
    """Means to log of P prompts: ``losses`` ``[P]``, ``scores``, ``group`` and ``rank`` ``[M]``."""
    scores = scores.detach()
    margins, weights = untied_margins(scores, group, rank)
    sizes = torch.bincount(group, minlength=len(losses))
    return {
        "loss": losses.mean(),
        "accuracy": (weights * (margins.sign() + 1) / 2).sum() / len(losses),
        "margin": (weights * margins).sum() / len(losses),
        "score": (scores / sizes[group]).sum() / len(losses),
    }


def calibration_metric(scores: Tensor, group: Tensor, rank: Tensor) -> dict[str, Metric]:
    """``calibration_error`` of ``scores`` as the log-odds of being preferred."""
    return {"calibration_error": calibration_error(*untied_margins(scores, group, rank))}


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
