"""Functions for the fuzzed pipelines: checked against their signatures, never called."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignlab.bounds import Count, Seed


def world(*, out: Path, rows: Count = 8, seed: Seed = 0) -> None:
    """Rows from nothing."""


def train(
    *,
    out: Path,
    source: str,
    seed: Seed,
    rate: float = 0.1,
    kind: Literal["plain", "fast"] = "plain",
    switch: bool = False,
    sizes: Sequence[Count] = (1,),
    split: str | None = None,
    reward: Mapping[str, Any] | str | None = None,
) -> None:
    """A run."""
