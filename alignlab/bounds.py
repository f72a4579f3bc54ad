"""Annotations with bounds for a stage's numbers, which the pipeline checks before any stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

LARGEST_SEED = 2**32 - 1  # of numpy's generator


@dataclass(frozen=True)
class Bound:
    """Bounds of a number.

    Args:
        said: Completes "must be ..." in errors.
        fits: Whether a value is within the bound.
    """

    said: str
    fits: Callable[[Any], bool]


Count = Annotated[int, Bound("a whole number > 0", lambda value: value > 0)]
Amount = Annotated[int, Bound("a whole number >= 0", lambda value: value >= 0)]
Seed = Annotated[int, Bound(f"0 to {LARGEST_SEED}", lambda value: 0 <= value <= LARGEST_SEED)]
Positive = Annotated[float, Bound("a number > 0", lambda value: value > 0)]
Share = Annotated[float, Bound("a share in [0, 1)", lambda value: 0 <= value < 1)]
Fraction = Annotated[float, Bound("a share in (0, 1]", lambda value: 0 < value <= 1)]
Ratio = Annotated[float, Bound("a share in [0, 1]", lambda value: 0 <= value <= 1)]
