"""Metrics of a step or a validation set, exact however its rows are cut into batches and ranks.

A correlation or a calibration error is not the average over batches, and a mean is one only with
the right weights (Lightning 2.6 halves an odd count over two ranks as a whole number, so its mean
of 5 rows is a quarter too large). So each batch and rank adds to a few sums in float64, and the
metric is computed from the sums of all rows.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from alignlab.functional import calibration_gaps


class Metric(NamedTuple):
    """What a batch adds to a metric.

    Attributes:
        finish: Computes the metric from the sums of all batches and ranks.
        sums: ``[S]`` float64.
        combine: How the sums of two batches become those of both.
    """

    finish: Callable[[Tensor], Tensor]
    sums: Tensor
    combine: Literal["sum", "max"] = "sum"

    @property
    def value(self) -> Tensor:
        """The metric, if there is no other batch."""
        return self.finish(self.sums)


Means = Mapping[str, Any]  # a Metric, or a tensor: a mean over what the objective counts


def add_batch(before: Mapping[str, Metric], batch: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics ``before`` with one more batch in their sums."""
    both = dict(before)
    for name, new in batch.items():
        if name in before:
            add = torch.add if new.combine == "sum" else torch.maximum
            new = new._replace(sums=add(before[name].sums, new.sums))
        both[name] = new
    return both


def over_ranks(metrics: Mapping[str, Metric], strategy: Any, device: Any) -> dict[str, Tensor]:
    """The metrics of all ranks together, float32; every rank has the same names.

    Args:
        metrics: This rank's.
        strategy: The trainer's.
        device: Where ranks exchange tensors.
    """
    found = {}
    for how in ("sum", "max"):
        some = {name: metric for name, metric in metrics.items() if metric.combine == how}
        if some:
            sums = torch.cat([metric.sums for metric in some.values()]).to(device)
            sums = strategy.reduce(sums, reduce_op=how)
            parts = sums.split([len(metric.sums) for metric in some.values()])
            for (name, metric), part in zip(some.items(), parts, strict=True):
                found[name] = metric._replace(sums=part).value.float()
    return {name: found[name] for name in metrics}


def weighted_means(means: Means, weight: int) -> dict[str, Metric]:
    """Make metrics of tensors that are means over ``weight`` rows; metrics pass unchanged."""
    return {
        name: value if isinstance(value, Metric) else mean_of(_exact(value) * weight, weight)
        for name, value in means.items()
    }


def mean_of(total: Tensor, count: Tensor | int) -> Metric:
    """A mean, given by its sum and count in this batch."""
    total = _exact(total)
    return Metric(_ratio, torch.stack([total, torch.as_tensor(count).to(total)]))


def largest(values: Tensor) -> Metric:
    """The largest of all ``values``, which are not negative; 0 if there is none."""
    values = _exact(values)
    return Metric(_only, (values.max() if len(values) else values.new_zeros(()))[None], "max")


def correlation(x: Tensor, y: Tensor) -> Metric:
    """Pearson's correlation of two ``[M]`` tensors; NaN where either does not vary."""
    x, y = _exact(x), _exact(y)
    sums = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(1)
    return Metric(_correlation, sums)


def calibration_error(margins: Tensor, weights: Tensor) -> Metric:
    """Calibration error of a Bradley-Terry model on N pairs, whose better one leads by ``margins``.

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
    return Metric(_calibration_error, torch.cat([gaps, weights.sum()[None]]))


def _exact(x: Tensor) -> Tensor:
    x = x.detach()
    return x.cpu().double() if x.device.type == "mps" else x.double()  # which has no float64


def _ratio(sums: Tensor) -> Tensor:
    return sums[0] / sums[1].clamp(min=1)


def _only(sums: Tensor) -> Tensor:
    return sums[0]


def _correlation(sums: Tensor) -> Tensor:
    n, x, y, xx, yy, xy = sums.unbind()
    squares, both = torch.stack([n * xx, n * yy]), torch.stack([x * x, y * y])
    spread = (squares - both).masked_fill(squares - both <= 1e-12 * squares, torch.nan)  # rounding
    return (n * xy - x * y) / spread.prod().sqrt()


def _calibration_error(sums: Tensor) -> Tensor:
    return sums[:-1].abs().sum() / sums[-1]
