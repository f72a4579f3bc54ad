"""What the hyperparameters did: where runs end by value, and which of them mattered."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from alignlab.results.tables import Effect, Importance, Point

ENOUGH = 6  # runs below which a share of variation is a guess
BINS = 6  # values that a design repeats; more of them are a continuous range


def last_points(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Each objective's runs after their last step."""
    last: dict[tuple[str, str], Point] = {}
    for point in points:
        key = (point.experiment, point.run_id)
        if key not in last or point.step > last[key].step:
            last[key] = point
    found = defaultdict(list)
    for point in last.values():
        found[point.objective].append(point)
    return dict(sorted(found.items()))


def effects(points: Iterable[Point]) -> list[Effect]:
    """Mean KL and reward by value, for every hyperparameter with more than one value."""
    rows = []
    for objective, own in last_points(points).items():
        for hparam in _varied(own):
            groups = defaultdict(list)
            for point in own:
                if hparam in point.hparams:
                    groups[point.hparams[hparam]].append(point)
            for value in sorted(groups, key=_place):
                runs = groups[value]
                kl, reward = [p.kl for p in runs], [p.reward for p in runs]
                rows.append(
                    Effect(
                        objective=objective,
                        hparam=hparam,
                        value=str(value),
                        n_runs=len(runs),
                        kl=statistics.fmean(kl),
                        kl_sd=_sd(kl),
                        reward=statistics.fmean(reward),
                        reward_sd=_sd(reward),
                    )
                )
    return rows


def importances(points: Iterable[Point]) -> list[Importance]:
    """Omega squared of each varied hyperparameter for final KL and reward.

    The share of the variance between the runs that their values' means explain, less what chance
    would explain (Hays 1963); 0 where chance explains as much. A hyperparameter with more than
    ``BINS`` values is cut into bins of equal size. Left out for fewer than ``ENOUGH`` runs.
    Hyperparameters that divide the runs alike have one row together, because no run tells which of
    them mattered.
    """
    rows = []
    for objective, own in last_points(points).items():
        alike = defaultdict(list)
        for hparam in _varied(own):
            alike[_division(own, hparam)].append(hparam)
        for metric in ("kl", "reward"):
            for division, hparams in alike.items():
                places = [i for i, label in enumerate(division) if label is not None]
                if len(places) >= ENOUGH:
                    values = [getattr(own[i], metric) for i in places]
                    rows.append(
                        Importance(
                            objective=objective,
                            metric=metric,
                            hparam=", ".join(hparams),
                            importance=omega_squared(values, [division[i] for i in places]),
                            n_runs=len(places),
                        )
                    )
    return rows


def _division(runs: Sequence[Point], hparam: str) -> tuple[int | None, ...]:
    """Each run's group by its value, numbered as they first appear; ``None`` without the key."""
    places = [i for i, point in enumerate(runs) if hparam in point.hparams]
    labels = _binned([runs[i].hparams[hparam] for i in places])
    number = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    found: list[int | None] = [None] * len(runs)
    for i, label in zip(places, labels, strict=True):
        found[i] = number[label]
    return tuple(found)


def omega_squared(values: Sequence[float], labels: Sequence[Any]) -> float:
    """``(SSB - (k - 1) MSW) / (SST + MSW)`` of values in k groups, at least 0."""
    groups = defaultdict(list)
    for value, label in zip(values, labels, strict=True):
        groups[label].append(value)
    n, k, mean = len(values), len(groups), statistics.fmean(values)
    total = sum((value - mean) ** 2 for value in values)
    between = sum(len(own) * (statistics.fmean(own) - mean) ** 2 for own in groups.values())
    if n <= k or total == 0:
        return 0.0
    within = (total - between) / (n - k)
    return max(0.0, (between - (k - 1) * within) / (total + within))


def _binned(values: Sequence[Any]) -> Sequence[Any]:
    """The values themselves, or the quarter of the runs that each falls into."""
    if len(set(values)) <= BINS or any(isinstance(value, str | None) for value in values):
        return values
    order = sorted(values)
    cuts = [order[len(order) * place // 4] for place in (1, 2, 3)]
    return [sum(value >= cut for cut in cuts) for value in values]


def _place(value: Any) -> tuple[bool, bool, Any]:
    """Sort key of values: null first, then numbers, then words."""
    return value is not None, isinstance(value, str), value


def _varied(points: Sequence[Point]) -> list[str]:
    values = defaultdict(set)
    for point in points:
        for name, value in point.hparams.items():
            values[name].add(value)
    return sorted(name for name, found in values.items() if len(found) > 1)


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
