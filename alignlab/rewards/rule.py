"""Rewards that are rules: exact, instant, and known to everybody."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.data.toy import sentiment
from alignlab.rewards.base import Reward


class ToySentiment(Reward):
    """The toy world's own score (a logit, see ``alignlab.data.toy.sentiment``): its gold reward."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 scores; the prompts do not matter, every text has a score."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions")
        return torch.tensor([sentiment(text) for text in completions], dtype=torch.float64)
