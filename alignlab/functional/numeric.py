"""Elementary functions that keep their digits, and their gradients, near the edges."""

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
