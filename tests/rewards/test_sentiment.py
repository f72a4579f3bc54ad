"""The sentiment reward of a scorer whose weights are set by hand."""

from pathlib import Path

import torch

from alignlab.rewards.ngrams import NgramScorer
from alignlab.rewards.sentiment import SentimentReward


def test_prompt_and_completion_are_one_text(tmp_path: Path) -> None:
    """The pair "not good" spans both: its weight counts, beside those of its words and the bias."""
    scorer = NgramScorer(["good", "not good"])
    scorer.weight.copy_(torch.tensor([1.0, -3.0], dtype=torch.float64))
    scorer.bias.fill_(0.5)
    scorer.save(tmp_path)
    scores = SentimentReward(tmp_path)(["It is not", "It is"], [" good", " good good"])
    assert scores.tolist() == [0.5 + 1 - 3, 0.5 + 1]
    assert scores.dtype == torch.float64
