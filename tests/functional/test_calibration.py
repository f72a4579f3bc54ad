"""Calibration gaps, by hand."""

import torch

from alignlab.functional import calibration_gaps


def test_gaps_by_hand() -> None:
    """0.05 and 0.08 share the first of ten bins, 1 belongs to the last, and weights count."""
    said = torch.tensor([0.05, 0.08, 0.72, 1.0], dtype=torch.float64)
    happened = torch.tensor([0.0, 1.0, 1.0, 0.5], dtype=torch.float64)
    gaps = calibration_gaps(said, happened)
    expected = torch.zeros(10, dtype=torch.float64)
    expected[0], expected[7], expected[9] = 0.05 - 0.92, -0.28, 0.5
    torch.testing.assert_close(gaps, expected)
    weighted = calibration_gaps(said, happened, torch.tensor([2.0, 0.0, 1.0, 1.0]))
    assert float(weighted[0]) == 0.1


def test_bins_may_begin_at_one_half() -> None:
    """Two bins from 1/2 to 1: 0.74 is in the first, 0.76 in the second."""
    said = torch.tensor([0.5, 0.74, 0.76])
    gaps = calibration_gaps(said, torch.zeros(3), lowest=0.5, bins=2)
    torch.testing.assert_close(gaps, torch.tensor([1.24, 0.76]))
