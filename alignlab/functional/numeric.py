"""Elementary functions that keep their digits, and what rounding alone can explain."""

import math

import torch
from torch import Tensor


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x < 0``, exact from ``-1e-12`` to ``-50`` (Maechler 2012).

    It is ``-inf`` at 0 and NaN above, where no logarithm exists.
    """
    near = x > -math.log(2)
    far = x.masked_fill(near, -1)  # near 0 this branch is log(0), and its gradient would be NaN
    return torch.where(near, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(far)))


def beyond_rounding(first: Tensor, second: Tensor, dtype: torch.dtype) -> float | None:
    """The gap between two forwards' log-probs of the same tokens, if ``dtype`` does not explain it.

    In float32 and finer, the gap is the largest of a token, and counts above 1e-3 nat: another
    batch, padding or a key-value cache cause at most 1e-5. In a coarser ``dtype``, single tokens
    differ by far more than most, so the gap is the root mean square, and counts above 0.1 nat: the
    same changes cause at most 0.01 there (docs/precision.md has the measurements), a temperature
    of 0.9 instead of 1 causes 0.26.

    Args:
        first: Log-probs in nats, in any shape.
        second: The same tokens' log-probs.
        dtype: What the coarser of the two forwards computes in.
    """
    gap = (first.detach() - second.detach()).abs()
    exact = torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps
    size = float(gap.max() if exact else gap.square().mean().sqrt())
    return None if size <= (1e-3 if exact else 0.1) else size  # NaN is beyond
