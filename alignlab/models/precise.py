"""Make models compute in float64 throughout, for the checks of layouts and samplers.

Hugging Face's RMS norms compute in float32 whatever the model's precision, which leaves a float64
model with float32's rounding. The norms of a float64 model are therefore replaced by exact ones.
Each is compared with the norm that it replaces, because families use the weight differently.
"""

import logging
from copy import deepcopy
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class PreciseRMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467) in its input's precision.

    Args:
        weight: ``[H]``, the scale of the norm it replaces (shared, not copied).
        eps: Added to the mean square.
        offset: Added to the weight: 1 in Gemma's family, whose weights start at 0.
    """

    def __init__(self, weight: nn.Parameter, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.eps, self.offset = weight, eps, offset

    def forward(self, hidden: Tensor) -> Tensor:
        """Scale ``[..., H]`` to mean square 1, then by the weight."""
        scale = self.weight + self.offset if self.offset else self.weight
        return scale * hidden * (hidden.square().mean(-1, keepdim=True) + self.eps).rsqrt()


def make_precise(model: nn.Module) -> None:
    """Replace the RMS norms of a float64 ``model`` by ones that stay in float64.

    A norm that computes something else than the replacement is kept, and logged.
    """
    left = set()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            weight = getattr(child, "weight", None)
            if "RMSNorm" not in type(child).__name__ or isinstance(child, PreciseRMSNorm):
                continue
            if not isinstance(weight, nn.Parameter) or weight.dtype != torch.float64:
                continue
            exact = precise(child)
            if exact is None:
                left.add(type(child).__name__)
            else:
                setattr(parent, name, exact)
    if left:
        log.warning("float64: %s still rounds to float32", ", ".join(sorted(left)))


def precise(norm: Any) -> PreciseRMSNorm | None:
    """The float64 norm that equals ``norm`` up to float32's rounding, or ``None``.

    They are compared on random numbers with a random weight, because different formulas may agree
    at the norm's own weight.
    """
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(eps, float) or len(signature(norm.forward).parameters) > 1:
        return None  # it takes other inputs besides states, such as a gate
    generator = torch.Generator().manual_seed(0)
    trial = deepcopy(norm).cpu()
    weight = nn.Parameter(trial.weight.detach().clone().normal_(generator=generator))
    trial.weight = weight
    size = eps**0.5 * torch.tensor([[0.3], [1.0], [3.0], [1e3]], dtype=torch.float64)
    hidden = torch.randn(4, len(weight), generator=generator, dtype=torch.float64) + 0.5
    with torch.no_grad():
        wanted = trial(size * hidden)
        for offset in (0.0, 1.0):
            found = PreciseRMSNorm(weight, eps, offset)(size * hidden)
            if torch.allclose(found, wanted.double(), rtol=1e-5, atol=1e-6):
                return PreciseRMSNorm(norm.weight, eps, offset)
    return None
