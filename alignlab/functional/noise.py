"""Random numbers that are functions of what they are for, not draws from a stream.

A number depends on its arguments only: not on the batch it is drawn in, the rank, the order of rows
or what was drawn before. So a resumed, re-batched or distributed run uses the same numbers.
The hash is SplitMix64's finalizer (Steele, Lea and Flood 2014) applied word by word in wrapping
64-bit integers, the same on every device.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_UNIFORM, _PERMUTATION = 1, 2  # what the numbers are for, so that uses never share them


def uniform(
    seed: int, rollout: int, prompt: Tensor, sample: Tensor, position: Tensor | int
) -> Tensor:
    """One number strictly between 0 and 1 for each token to be sampled.

    Args:
        seed: The run's seed.
        rollout: Which rollout phase.
        prompt: ``[R]`` long, ``PromptTree.index``.
        sample: ``[R]`` long, which of the prompt's completions.
        position: ``[R]`` long or one number, which token of the completion.

    Returns:
        ``[R]`` float64 on the device of ``prompt``.
    """
    bits = _hash(_UNIFORM, seed, rollout, prompt, sample, position, device=prompt.device)
    # 52 bits and a half: exact in float64, never 0 and never 1.
    return (_shift_right(bits, 12).double() + 0.5) * 2.0**-52


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """A shuffle of ``0 .. n - 1``, ``[n]`` long on the CPU, for one epoch of one run."""
    # The hash is a bijection in its last word: no two of the keys are equal.
    return _hash(_PERMUTATION, seed, epoch, torch.arange(n), device=torch.device("cpu")).argsort()


def _hash(*words: Tensor | int, device: torch.device) -> Tensor:
    state = torch.zeros((), dtype=torch.int64, device=device)
    for word in words:
        if isinstance(word, int):
            word = torch.tensor(_signed(word), device=device)
        state = _mix((state ^ word) + _signed(_GOLDEN))
    return state


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """A logical shift: int64's own ``>>`` would drag the sign bit along."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(word: int) -> int:
    """The low 64 bits of a Python integer as a signed one."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
