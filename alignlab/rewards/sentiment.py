"""Sentiment of film reviews as a reward: the log-odds that a text is positive, from its words."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from alignlab.names import moved_from
from alignlab.rewards.base import Reward
from alignlab.rewards.ngrams import NgramScorer

if not TYPE_CHECKING:
    __getattr__ = moved_from(__name__)


class SentimentReward(Reward):
    """Log-odds (the logit, in nats) that prompt + completion, read as one text, is positive.

    The classifier of the DPO paper reads the whole text too (arXiv:2305.18290, appendix C.1).
    The prompt adds nearly the same amount to all its completions, so it cancels in comparisons. The
    score is calibrated on excerpts of 16-64 words: 0 is even odds, its sigmoid is a probability.

    Args:
        path: Folder of a fitted :class:`NgramScorer`, as ``fit_sentiment`` writes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.scorer = NgramScorer.load(path)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 logits; texts are joined as they are."""
        return self.scorer([p + c for p, c in zip(prompts, completions, strict=True)])
