"""Tables made from the points beside the frontier: comparisons, areas, hyperparameters."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from alignlab.files import atomic_write


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reward of ``objective`` minus that of ``other`` at a KL budget, with a 95 % interval.

    Args:
        objective: The first.
        other: The second.
        kl_budget: Nats per completion.
        difference: Mean over seeds.
        lo: Lower end of its interval.
        hi: Upper end.
        n_seeds: Seeds compared pair by pair; where the two have different ones, the smaller number.
        n_prompts: Prompts behind it.
    """

    objective: str
    other: str
    kl_budget: float
    difference: float
    lo: float
    hi: float
    n_seeds: int
    n_prompts: int


@dataclass(frozen=True, kw_only=True)
class Hypervolume:
    """Area between an objective's frontier and the reference's reward, up to ``kl_max``.

    Divided by ``kl_max`` it is the mean gain over budgets. With two metrics, KL down and reward
    up, it is the hypervolume that the runs dominate.
    """

    objective: str
    kl_max: float
    hypervolume: float
    lo: float
    hi: float
    n_seeds: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Where an objective's runs with one value of a hyperparameter end, whatever their others.

    Args:
        objective: Of the runs.
        hparam: Name of the hyperparameter.
        value: Its value.
        n_runs: Runs with it, seeds counted one by one.
        kl: Their mean KL after the last step.
        kl_sd: Standard deviation over the runs; 0 for a single one.
        reward: Their mean reward after the last step.
        reward_sd: Its standard deviation.
    """

    objective: str
    hparam: str
    value: str
    n_runs: int
    kl: float
    kl_sd: float
    reward: float
    reward_sd: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much of the variation among an objective's runs goes with a hyperparameter.

    ``metric`` is ``kl`` or ``reward`` after the last step; ``importance`` is omega squared of its
    values' means. What is left to 1 is interaction, seeds and noise.
    """

    objective: str
    metric: str
    hparam: str
    importance: float
    n_runs: int


Derived = Comparison | Hypervolume | Effect | Importance


def write_derived(path: Path, row_type: type[Derived], rows: Sequence[Derived]) -> None:
    """Replace ``path`` by ``rows``; numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(row_type)]
    writer.writerow(names)
    for row in rows:
        cells = [getattr(row, name) for name in names]
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells])
    atomic_write(path, text.getvalue().encode())
