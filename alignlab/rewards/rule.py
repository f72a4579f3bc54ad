"""Rewards that are rules: exact, instant, and known to everybody."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.rewards.base import Reward
from alignlab.worlds.toy import sentiment


class ToySentiment(Reward):
    """The toy world's gold reward: a logit, see ``alignlab.worlds.toy.sentiment``."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 scores; the prompts do not matter, every text has a score."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        return torch.tensor([sentiment(text) for text in completions], dtype=torch.float64)
