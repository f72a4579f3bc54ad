"""What a reward is: a function of texts, so that the scorer may have its own tokenizer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignlab.errors import DataError

if TYPE_CHECKING:  # so that the short forms can be read without the seconds that torch takes
    from torch import Tensor


class Reward(ABC):
    """Scores completions on one stated scale: same texts, same scores, whatever the batch.

    A model's scores may differ between batches by float32's rounding, about 1e-6; within one call,
    equal texts have equal scores.

    Any class whose objects can be called like this is a reward; it need not inherit. (A protocol
    of ``__call__`` alone would be read from YAML as a function that makes tensors.)
    """

    @abstractmethod
    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> "Tensor":
        """``[N]`` float scores of N completions, one prompt given with each, on the CPU."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        # A class can be called too, but that makes an object and scores nothing.
        return not issubclass(other, type) and any("__call__" in c.__dict__ for c in other.__mro__)


def checked_rewards(reward: Reward, prompts: Sequence[str], completions: Sequence[str]) -> "Tensor":
    """``[N]`` float64 scores of N completions on the CPU, checked to be N finite numbers.

    Raises:
        DataError: The scores are not one number each, or one is not finite.
    """
    from torch import Tensor, nn

    from alignlab.models.modes import reading  # with seconds of imports that rules do without

    with reading(*([reward] if isinstance(reward, nn.Module) else [])):
        scores = reward(prompts, completions)
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else None
    if shape != (len(completions),):
        given = f"are a {type(scores).__name__}" if shape is None else f"of shape {shape}"
        raise DataError(
            f"{type(reward).__name__}: scores {given} for {len(completions)} completions; a reward "
            "gives a tensor of one number each."
        )
    scores = scores.double().cpu()
    if not bool(scores.isfinite().all()):
        bad = (~scores.isfinite()).nonzero()[:, 0].tolist()
        text = prompts[bad[0]] + completions[bad[0]]
        raise DataError(
            f"{type(reward).__name__}: {len(bad)} of {len(scores)} scores are not finite, e.g. "
            f"{scores[bad[0]]} for {text!r}."
        )
    return scores
