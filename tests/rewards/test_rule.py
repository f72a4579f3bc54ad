"""The gold reward of the toy world as a Reward."""

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.rewards import Reward
from alignlab.rewards.rule import Length, Matches, ToyReview, ToySentiment


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


def test_words_and_patterns_are_counted_by_hand() -> None:
    prompts, completions = ["a b c"] * 3, ["one  two\nthree", "", "Yes, sir"]
    assert Length()(prompts, completions).tolist() == [3, 0, 2]
    assert Matches("yes|two$")(prompts, completions).tolist() == [0, 0, 0]
    assert Matches("(?i)yes|THREE$")(prompts, completions).tolist() == [1, 0, 1]
    with pytest.raises(ConfigError, match="pattern '\\(': not a regular expression"):
        Matches("(")


def test_reviews_are_those_of_the_grammar() -> None:
    prompts = ["the plot of this film is"] * 2 + ["the plot of that film"]
    texts = [" very good .", " good good .", " very good ."]  # the third lacks its "was"
    assert ToyReview()(prompts, texts).tolist() == [1.0, 0.0, 0.0]
