"""A reward that can be worked out by eye."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.rewards.base import Reward


class WordSum(Reward):
    """The sum of the words' numbers, so " w5 w7" scores 12.

    Args:
        modulus: Keep the remainder only, for ties.
    """

    def __init__(self, modulus: int = 10**6) -> None:
        super().__init__()
        self.modulus = modulus

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]``, from the completions alone."""
        sums = [sum(int(word[1:]) for word in text.split()) for text in completions]
        return torch.tensor(sums, dtype=torch.float64) % self.modulus
