"""Metrics of a validation set, exact however its rows are divided into batches and ranks.

A correlation or a calibration error is not the average over batches, and a mean is only with the
right weights (Lightning 2.6 halves an odd count over two ranks as a whole number, so its mean of 5
rows is a quarter too large). So each batch and rank adds to a few sums in float64, and the metric
is computed from them when all rows are in.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from alignlab.functional import calibration_gaps

Metric = tuple[Callable[[Tensor], Tensor], Tensor]  # computes the metric from sums; a batch's sums


def add_batch(before: Mapping[str, Metric], batch: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics with one more batch in their sums; ``before`` the first batch it is empty."""
    return {
        name: (finish, before[name][1] + sums if name in before else sums)
        for name, (finish, sums) in batch.items()
    }


def weighted_means(means: Mapping[str, Tensor], weight: int) -> dict[str, Metric]:
    """Metrics that are means, each the mean of ``weight`` rows of this batch."""
    return {
        name: (_ratio, torch.stack([_exact(value) * weight, torch.tensor(weight).double()]))
        for name, value in means.items()
    }


def correlation(x: Tensor, y: Tensor) -> Metric:
    """Pearson's correlation of two ``[M]`` tensors; NaN where either does not vary."""
    x, y = _exact(x), _exact(y)
    return _correlation, torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(1)


def calibration_error(margins: Tensor, weights: Tensor) -> Metric:
    """How honest a Bradley-Terry model is about N pairs whose better one is ``margins`` ahead.

    It backs the higher score with confidence ``sigmoid(|margin|)``, and is right if the margin is
    positive, half right if it is 0. The error is the mean gap between confidence and how often it
    is right, over ten bins of confidence, equally wide over [1/2, 1], that count by their weight.

    Args:
        margins: ``[N]``.
        weights: ``[N]``.
    """
    margins, weights = _exact(margins), _exact(weights)
    confidence, right = margins.abs().sigmoid(), (margins.sign() + 1) / 2
    gaps = calibration_gaps(confidence, right, weights, lowest=0.5)
    return _calibration_error, torch.cat([gaps, weights.sum()[None]])


def _exact(x: Tensor) -> Tensor:
    return x.detach().cpu().double()  # some devices have no float64


def _ratio(sums: Tensor) -> Tensor:
    return sums[0] / sums[1]


def _correlation(sums: Tensor) -> Tensor:
    n, x, y, xx, yy, xy = sums.unbind()
    squares, both = torch.stack([n * xx, n * yy]), torch.stack([x * x, y * y])
    spread = (squares - both).masked_fill(squares - both <= 1e-12 * squares, torch.nan)  # rounding
    return (n * xy - x * y) / spread.prod().sqrt()


def _calibration_error(sums: Tensor) -> Tensor:
    return sums[:-1].abs().sum() / sums[-1]
