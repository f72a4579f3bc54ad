"""What a reward is: a function of texts, so that the scorer may have its own tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class Reward(ABC):
    """Scores completions on one stated scale: same texts, same scores, whatever the batch.

    Any class whose objects can be called so is one; it need not inherit. (A protocol of
    ``__call__`` alone would be read from YAML as a function that makes tensors.)
    """

    @abstractmethod
    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float scores of N completions, one prompt given with each, on the CPU."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        # A class can be called too, but that makes an object and scores nothing.
        return not issubclass(other, type) and any("__call__" in c.__dict__ for c in other.__mro__)
