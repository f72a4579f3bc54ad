"""A scorer whose scores are given: what an objective makes of scores, without a transformer."""

from typing import Any

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTrees


def fixed(scores: list[float], by_token: bool = False, dtype: Any = None) -> Any:
    """A :class:`FixedScores` where a scorer is wanted."""
    return FixedScores(scores, by_token, dtype)


class FixedScores(nn.Module):
    """Gives the i-th completion of a batch the i-th score.

    With ``by_token`` the score is that of a completion's first token, so that the same completion
    has the same score in every batch.
    """

    outputs = 1

    def __init__(self, scores: list[float], by_token: bool, dtype: Any) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(scores, dtype=dtype))
        self.by_token = by_token

    def scores(self, trees: PromptTrees) -> Tensor:
        if self.by_token:
            return self.table[trees.completion_ids[:, 0]]
        return self.table[: len(trees.group)]
