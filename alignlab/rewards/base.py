"""What a reward is: a function of texts, so that the scorer may have its own tokenizer."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Reward(Protocol):
    """Scores completions on one stated scale: same texts, same scores, whatever the batch."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float scores of N completions, one prompt given with each, on the CPU."""
        ...
