"""The gold reward of the toy world as a Reward."""

import pytest
import torch

from alignlab.rewards import Reward
from alignlab.rewards.rule import ToySentiment


def test_scores_by_hand() -> None:
    reward: Reward = ToySentiment()
    scores = reward(["the plot"] * 3, [" is very good .", " is not very good .", ""])
    assert scores.dtype == torch.float64
    assert scores.tolist() == [1.5, -1.5, 0.0]


def test_prompt_does_not_matter() -> None:
    assert ToySentiment()(["not", "superb awful"], [" good"] * 2).tolist() == [1.0, 1.0]


def test_nothing_to_score() -> None:
    assert ToySentiment()([], []).shape == (0,)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="1 prompts for 2 completions"):
        ToySentiment()(["a"], ["b", "c"])
