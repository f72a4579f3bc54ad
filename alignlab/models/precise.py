"""Float64 that is float64 all the way, for the checks that layouts and samplers are held to.

Hugging Face's RMS norms compute in float32 whatever the model's precision, which leaves a float64
model with float32's rounding. The norms of a float64 model are therefore replaced by exact ones.
"""

import torch
from torch import Tensor, nn


class PreciseRMSNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv:1910.07467) in its input's precision.

    Args:
        weight: ``[H]``, the scale of the norm it replaces (shared, not copied).
        eps: Added to the mean square.
    """

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Scale ``[..., H]`` to mean square 1, then by the weight."""
        return self.weight * hidden * (hidden.square().mean(-1, keepdim=True) + self.eps).rsqrt()


def make_precise(model: nn.Module) -> None:
    """Replace the RMS norms of a float64 ``model`` by ones that stay in float64."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm") and not isinstance(child, PreciseRMSNorm):
                eps = getattr(child, "variance_epsilon", getattr(child, "eps", None))
                weight = getattr(child, "weight", None)
                if not isinstance(eps, float) or not isinstance(weight, nn.Parameter):
                    continue
                if weight.dtype == torch.float64:
                    setattr(parent, name, PreciseRMSNorm(weight, eps))
