"""Calibration of stated probabilities: predictions against outcomes, bin by bin."""

import torch
from torch import Tensor


def calibration_gaps(
    probability: Tensor,
    outcome: Tensor,
    weights: Tensor | None = None,
    *,
    lowest: float = 0.0,
    bins: int = 10,
) -> Tensor:
    """``[bins]`` sums of ``probability - outcome`` in bins of probability, equally wide.

    The calibration error is the sum of their absolute values over the sum of the weights. The gaps
    of several batches add up; their errors do not.

    Args:
        probability: ``[N]`` predictions, from ``lowest`` to 1.
        outcome: ``[N]`` outcomes, from 0 to 1.
        weights: ``[N]``; all 1 when left out.
        lowest: Lower end of the first bin.
        bins: Number of bins.
    """
    position = (probability - lowest) / (1 - lowest) * bins
    gaps = probability - outcome if weights is None else weights * (probability - outcome)
    zeros = torch.zeros(bins, dtype=gaps.dtype, device=gaps.device)
    return zeros.index_add(0, position.long().clamp(max=bins - 1), gaps)
