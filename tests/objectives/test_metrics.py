"""Metrics made of sums, by hand."""

import math

import pytest
import torch

from alignlab.objectives.metrics import (
    Metric,
    add_batch,
    calibration_error,
    correlation,
    weighted_means,
)


def value(metric: Metric) -> float:
    return float(metric.value)


def test_means_of_uneven_batches_weigh_by_their_rows() -> None:
    """Three rows of mean 1 and one of 5 have the mean 2, not 3."""
    first = weighted_means({"loss": torch.tensor(1.0)}, 3)
    both = add_batch(add_batch({}, first), weighted_means({"loss": torch.tensor(5.0)}, 1))
    assert value(both["loss"]) == 2


def test_correlation_of_what_does_not_vary_is_unknown() -> None:
    for n in range(2, 20):  # the sums of equal numbers round to something of either sign
        same, other = torch.full((n,), 0.1, dtype=torch.float64), torch.arange(n)
        assert math.isnan(value(correlation(same, other)))
        assert math.isnan(value(correlation(other, same)))
    assert value(correlation(other, -2 * other + 3)) == pytest.approx(-1)


def test_calibration_worked_by_hand() -> None:
    """Sure of 3/4 four times and right three times is calibrated; half sure is never wrong."""
    log3 = math.log(3)

    def error(*margins: float, weights: tuple[float, ...] = ()) -> float:
        weigh = torch.tensor(weights or (1.0,) * len(margins))
        return value(calibration_error(torch.tensor(margins, dtype=torch.float64), weigh))

    assert error(log3, log3, log3, -log3) == pytest.approx(0)
    assert error(log3, -log3) == pytest.approx(0.25)  # sure of 3/4, right half of the time
    assert error(0.0, 0.0, 0.0) == 0
    # Opposite gaps of different bins do not cancel: sure of 3/4 and wrong, sure of 0.9 and right.
    assert error(-log3, math.log(9), weights=(1, 3)) == pytest.approx((0.75 + 3 * 0.1) / 4)
    assert error(1000.0) == 0  # certainty has a bin too
