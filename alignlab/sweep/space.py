"""What a sweep varies: dimensions of the space, and points in it.

A dimension is written as a list of choices, ``{choices: [...]}``, ``{float: [low, high]}`` or
``{int: [low, high]}``, the last two with ``log: true`` or ``step`` where wanted.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from alignlab.errors import ConfigError
from alignlab.plan.keys import (
    MOST_CHOICES,
    MOST_TRIALS,
    POSITIVE,
    SWITCH,
    Kind,
    check_count,
    checked,
    is_number,
)


def _is_choice(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str)) or is_number(value)


def _are_ends(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


DIMENSION_KEYS = {
    "choices": Kind(
        "a list of at least one number, word, switch or null",
        lambda value: isinstance(value, list) and value != [] and all(map(_is_choice, value)),
        null=False,
    ),
    "float": Kind("[low, high], two numbers", _are_ends, null=False),
    "int": Kind(
        "[low, high], two whole numbers",
        lambda value: _are_ends(value) and {int} == set(map(type, value)),
        null=False,
    ),
    "log": SWITCH,
    "step": POSITIVE,
}
WAYS = (
    "a list of choices, {float: [low, high]} or {int: [low, high]}, with log: true or step where "
    "wanted"
)
ARM = "arm"  # the parameter that says which arm a trial belongs to

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Point:
    """An arm and a value for each of its dimensions, dotted key -> value."""

    arm: str
    values: dict[str, Value]


@dataclass(frozen=True)
class Dimension:
    """One key that a sweep varies.

    Args:
        name: The parameter's name in the study: the key, with the arm before it where the
            dimension is one arm's own.
        key: Dotted key of the stage's config.
        distribution: Its values.
    """

    name: str
    key: str
    distribution: optuna.distributions.BaseDistribution

    def count(self) -> int | None:
        """How many values there are; ``None`` for a continuous range."""
        d = self.distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, optuna.distributions.IntDistribution):
            return (d.high - d.low) // d.step + 1
        assert isinstance(d, optuna.distributions.FloatDistribution)
        if d.step is not None:
            return round((d.high - d.low) / d.step) + 1
        return 1 if d.low == d.high else None

    def values(self) -> list[Value] | None:
        """All values, where a grid can have them; ``None`` otherwise."""
        d = self.distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return list(d.choices)
        if isinstance(d, optuna.distributions.IntDistribution) and not d.log:
            return list(range(d.low, d.high + 1, d.step))
        if isinstance(d, optuna.distributions.FloatDistribution) and d.step is not None:
            steps = round((d.high - d.low) / d.step)
            return [round(d.low + i * d.step, 12) for i in range(steps + 1)]
        return None

    def ends(self) -> list[Value]:
        """Values to try the key with: all choices, or the ends of the range."""
        d = self.distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return list(d.choices)
        assert isinstance(d, (optuna.distributions.IntDistribution,
                              optuna.distributions.FloatDistribution))  # fmt: skip
        return [d.low, d.high]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Value:
        """The trial's value."""
        d = self.distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            chosen: Value = trial.suggest_categorical(self.name, d.choices)
            return chosen
        if isinstance(d, optuna.distributions.IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, optuna.distributions.FloatDistribution)
        value = trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)
        return value if d.step is None else round(value, 12)


@dataclass(frozen=True)
class Space:
    """The dimensions of every arm."""

    arms: dict[str, list[Dimension]]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Point:
        """The point that ``trial`` stands for."""
        arm = trial.suggest_categorical(ARM, list(self.arms))
        return Point(arm, {d.key: d.suggest(trial) for d in self.arms[arm]})

    def params(self, point: Point) -> dict[str, Value]:
        """``point`` as the study's parameters."""
        return {ARM: point.arm} | {d.name: point.values[d.key] for d in self.arms[point.arm]}

    def grid(self) -> list[Point]:
        """Every combination of every arm.

        Raises:
            ConfigError: A dimension has no finite list of values, or they are too many.
        """
        check_count(self.count() or 0, MOST_TRIALS, "sampler grid: points")
        points = []
        for arm, dimensions in self.arms.items():
            axes = [dimension.values() for dimension in dimensions]
            for dimension, axis in zip(dimensions, axes, strict=True):
                if axis is None:
                    raise ConfigError(
                        f"space.{dimension.key}: a grid needs choices, an int or a step, got a "
                        "continuous range. Give it choices, or take another sampler."
                    )
            keys = [dimension.key for dimension in dimensions]
            for values in itertools.product(*(axis for axis in axes if axis is not None)):
                points.append(Point(arm, dict(zip(keys, values, strict=True))))
        return points

    def count(self) -> int | None:
        """How many points there are; ``None`` where a range is continuous."""
        counts = [[d.count() for d in dimensions] for dimensions in self.arms.values()]
        if any(None in own for own in counts):
            return None
        return sum(math.prod(count or 0 for count in own) for own in counts)

    def drawn(self, samplers: Mapping[str, optuna.samplers.BaseSampler], n: int) -> list[Point]:
        """``n`` different points, the arms in turn, each arm's from its own sampler.

        Fewer where the space has fewer.
        """
        n = min(n, self.count() or n)
        points: dict[str, Point] = {}
        studies = {arm: optuna.create_study(sampler=samplers[arm]) for arm in self.arms}
        for turn in range(20 * n):  # a small space repeats itself
            if len(points) == n:
                break
            arm = list(self.arms)[turn % len(self.arms)]
            trial = studies[arm].ask()
            point = Point(arm, {d.key: d.suggest(trial) for d in self.arms[arm]})
            studies[arm].tell(trial, 0.0)
            points.setdefault(repr(point), point)
        return list(points.values())


def read_dimension(name: str, key: str, entry: Any) -> Dimension:
    """A dimension as the YAML gives it.

    Raises:
        ConfigError: An entry that is none.
    """
    where = f"space.{key}"
    entry = {"choices": entry} if isinstance(entry, list) else entry
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected {WAYS}, got {entry!r}.")
    given = {k: v for k, v in checked(entry, DIMENSION_KEYS, where).items() if v is not None}
    kinds = [kind for kind in ("choices", "float", "int") if kind in given]
    if len(kinds) != 1:
        raise ConfigError(f"{where} needs exactly one of choices, float and int, got {entry!r}.")
    try:
        return Dimension(name, key, _distribution(kinds[0], given))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error} Got {entry!r}.") from None


def _distribution(kind: str, entry: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    if kind == "choices":
        return _categorical(entry)
    (low, high), log, step = entry[kind], entry.get("log", False), entry.get("step")
    if not low <= high:
        raise ValueError("a range goes from its low to its high end.")
    if step is not None:
        steps = (high - low) / step
        if kind == "int" and type(step) is not int:
            raise ValueError("the step of an int range is a whole number.")
        if steps < 1 or not math.isclose(steps, round(steps), rel_tol=1e-9):
            raise ValueError("a whole number of steps must lead from low to high.")
    if kind == "float":
        step = None if step is None else float(step)
        return optuna.distributions.FloatDistribution(float(low), float(high), log=log, step=step)
    return optuna.distributions.IntDistribution(low, high, log=log, step=step or 1)


def _categorical(entry: Mapping[str, Any]) -> optuna.distributions.BaseDistribution:
    choices = entry["choices"]
    check_count(len(choices), MOST_CHOICES, "choices")
    if len(entry) > 1:
        raise ValueError("choices have nothing beside them.")
    # true is no 1, though Python has it so; 1 and 1.0 are one value.
    if len({(isinstance(choice, bool), choice) for choice in choices}) < len(choices):
        raise ValueError("a choice is given twice.")
    return optuna.distributions.CategoricalDistribution(choices)
