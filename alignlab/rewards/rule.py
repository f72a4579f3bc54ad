"""Rewards that are simple rules: exact and fast."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.errors import ConfigError
from alignlab.rewards.base import Reward
from alignlab.worlds.toy import is_review, sentiment


class ToySentiment(Reward):
    """The toy world's gold reward: a logit, see ``alignlab.worlds.toy.sentiment``."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 scores; the prompts do not matter, every text has a score."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        return torch.tensor([sentiment(text) for text in completions], dtype=torch.float64)


class ToyReview(Reward):
    """1 for a completion that the toy world's grammar can write after its prompt, 0 for others."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64, 0 or 1; prompts are those of ``alignlab.worlds.toy.all_prompts()``."""
        found = [is_review(p, text) for p, text in zip(prompts, completions, strict=True)]
        return torch.tensor(found, dtype=torch.float64)


class Length(Reward):
    """The number of words of a completion, separated by white space."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 counts; the prompts do not matter."""
        return torch.tensor([len(text.split()) for text in completions], dtype=torch.float64)


class Matches(Reward):
    """1 for a completion in which a pattern is found, 0 for any other.

    Args:
        pattern: A regular expression of Python; ``(?i)`` at its beginning ignores case.

    Raises:
        ConfigError: ``pattern`` is not a regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as problem:
            raise ConfigError(
                f"pattern {pattern!r}: not a regular expression: {problem}."
            ) from None

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64, 0 or 1; the prompts do not matter."""
        found = [self.pattern.search(text) is not None for text in completions]
        return torch.tensor(found, dtype=torch.float64)
