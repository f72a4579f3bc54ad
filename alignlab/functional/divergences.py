"""f-divergences of a policy from its reference, each given by the slope of its ``f``.

``D_f = E_ref[f(policy / reference)]`` for a convex ``f`` (Wang et al. 2023, arXiv:2309.16240, Table
1). The policy that maximises a reward minus ``beta D_f`` has ``beta f'(policy / reference)`` equal
to the reward plus a constant. Ratios of whole completions overflow, so slopes take the log-ratio.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.errors import ConfigError

EDGE = 30.0  # exp is continued by its tangent from here: e^30 squared is still a float32


class Divergence(ABC):
    """An f-divergence."""

    @abstractmethod
    def slope(self, log_ratio: Tensor) -> Tensor:
        """``f'(exp(log_ratio)) - f'(1)``, elementwise."""


class ReverseKL(Divergence):
    """KL(policy || reference), the divergence of DPO."""

    def slope(self, log_ratio: Tensor) -> Tensor:
        """``log u``."""
        return log_ratio


class ForwardKL(Divergence):
    """KL(reference || policy), which is mass-covering."""

    def slope(self, log_ratio: Tensor) -> Tensor:
        """``1 - 1 / u``."""
        return -_expm1(-log_ratio)


class JensenShannon(Divergence):
    """Twice the Jensen-Shannon divergence, bounded by ``2 log 2``."""

    def slope(self, log_ratio: Tensor) -> Tensor:
        """``log(2 u / (1 + u))``."""
        return math.log(2) + F.logsigmoid(log_ratio)


class Alpha(Divergence):
    """The alpha-divergence, between reverse KL (``alpha`` towards 0) and forward KL (1).

    Args:
        alpha: Greater than 0.

    Raises:
        ConfigError: ``alpha`` is not greater than 0.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        if not alpha > 0:
            raise ConfigError(
                f"an alpha-divergence needs alpha > 0, got {alpha}. Set "
                "model.init_args.divergence.init_args.alpha, or use its limit at 0, ReverseKL."
            )
        self.alpha = alpha

    def slope(self, log_ratio: Tensor) -> Tensor:
        """``(1 - u^-alpha) / alpha``."""
        return -_expm1(-self.alpha * log_ratio) / self.alpha


class ChiSquaredKL(Divergence):
    """Chi-squared plus reverse KL, ``f(u) = (u - 1)^2 / 2 + u log u`` (arXiv:2407.13399)."""

    def slope(self, log_ratio: Tensor) -> Tensor:
        """``u - 1 + log u``."""
        return _expm1(log_ratio) + log_ratio


def _expm1(x: Tensor) -> Tensor:
    """``exp(x) - 1``, from ``EDGE`` on its tangent there: finite, with a gradient, for any x."""
    return torch.expm1(x.clamp(max=EDGE)) + math.exp(EDGE) * (x - EDGE).clamp(min=0)
