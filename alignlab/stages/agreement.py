"""How often a reward model agrees with held-out choices, and how calibrated its confidence is.

Of two completions whose scores differ by d, Bradley-Terry gives the higher one the probability
sigmoid(|d|) of being preferred: that is its confidence, between 1/2 and 1. Accuracy is how often it
was preferred, calibration compares the two, bin by bin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from alignlab.results.statistics import Interval, share_interval

BINS = 10


class Bin(NamedTuple):
    """One bin of pairs by confidence: the mean confidence, and how often the model was right."""

    lo: float
    hi: float
    pairs: int
    confidence: float
    right: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of :func:`agreement`.

    Args:
        pairs: How many.
        prompts: Of how many prompts.
        accuracy: Share of pairs whose preferred completion scores higher, a tie one half.
        interval: Of the accuracy, 95 %.
        log_loss: Mean of ``-log sigmoid(gap)``, in nats; log 2 for a model that knows nothing.
        calibration_error: Mean distance of confidence and accuracy of a bin, weighted by pairs.
        bins: Those that hold a pair.
    """

    pairs: int
    prompts: int
    accuracy: float
    interval: Interval
    log_loss: float
    calibration_error: float
    bins: list[Bin]


def agreement(gaps: ArrayLike, prompts: Sequence[object], *, bins: int = BINS) -> Agreement:
    """Accuracy and calibration of score gaps.

    Args:
        gaps: ``[N]``, score of the preferred completion less the other one's.
        prompts: ``[N]``, the prompt of each pair: pairs of one prompt are not independent.
        bins: Bins of confidence, equally wide from 1/2 to 1.
    """
    gap = np.asarray(gaps, dtype=np.float64)
    right = (np.sign(gap) + 1) / 2
    confidence = 1 / (1 + np.exp(-np.abs(gap)))
    which = np.minimum(((2 * confidence - 1) * bins).astype(int), bins - 1)
    names = np.array([str(prompt) for prompt in prompts])
    found = []
    for k in np.unique(which):
        here = which == k
        found.append(
            Bin(
                0.5 + int(k) / (2 * bins),
                0.5 + (int(k) + 1) / (2 * bins),
                int(here.sum()),
                float(confidence[here].mean()),
                float(right[here].mean()),
                share_interval(right[here], names[here].tolist()),
            )
        )
    return Agreement(
        pairs=len(gap),
        prompts=len(np.unique(names)),
        accuracy=float(right.mean()),
        interval=share_interval(right, names.tolist()),
        log_loss=float(np.logaddexp(0.0, -gap).mean()),
        calibration_error=sum(b.pairs * abs(b.confidence - b.right) for b in found) / len(gap),
        bins=found,
    )
