"""The reward class of README's "Bring your own ...", in the working directory."""

from collections.abc import Sequence

import torch


class MyReward:
    """Words a completion has, up to 30."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> torch.Tensor:
        """A score for each completion."""
        return torch.tensor([float(min(len(text.split()), 30)) for text in completions])
