"""What a sweep varies: dimensions of the space, and points in it."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from alignlab.errors import ConfigError
from alignlab.plan.schema import Keys, Number, Positive, Value, check_count, key

MOST_TRIALS = 10_000  # of a sweep whose points are listed before the first of them
MOST_CHOICES = 1_000  # of one key
ARM = "arm"  # the parameter that says which arm a trial belongs to
WAYS = (
    "must be exactly one of a list of choices, {float: [low, high]} and {int: [low, high]}, the "
    "last two with log: true or step where wanted"
)


def _different(choices: list[Value]) -> list[Value]:
    # true is no 1, though Python has it so; 1 and 1.0 are one value.
    if len({(isinstance(choice, bool), choice) for choice in choices}) < len(choices):
        raise ValueError("must hold each choice once")
    return choices


Choices = Annotated[
    list[Value], Field(min_length=1, max_length=MOST_CHOICES), AfterValidator(_different)
]
ENDS = Field(min_length=2, max_length=2)


class OneDimension(Keys):
    """Values of a key: choices, or a range from a low to a high end."""

    choices: Choices | None = key("The same as the list alone.")
    floats: Annotated[list[Number], ENDS] | None = Field(
        default=None, alias="float", description="[low, high]: numbers."
    )
    ints: Annotated[list[int], ENDS] | None = Field(
        default=None, alias="int", description="[low, high]: whole numbers."
    )
    log: bool | None = key("Spread evenly over the logarithm.")
    step: Positive | None = key("From one value to the next.")

    @model_validator(mode="after")
    def _is_possible(self) -> "OneDimension":
        self.distribution()
        return self

    def distribution(self) -> BaseDistribution:
        """The values as Optuna has them.

        Raises:
            ValueError: There is no such range.
        """
        if sum(given is not None for given in (self.choices, self.floats, self.ints)) != 1:
            raise ValueError(WAYS)
        if self.choices is not None:
            if (self.log, self.step) != (None, None):
                raise ValueError("must have neither log nor step beside its choices")
            return CategoricalDistribution(self.choices)
        low, high = self.floats or self.ints or []
        if not low <= high:
            raise ValueError("must go from its low to its high end")
        if self.step is not None:
            steps = (high - low) / self.step
            if steps < 1 or not math.isclose(steps, round(steps), rel_tol=1e-9):
                raise ValueError("must lead from low to high in a whole number of steps")
        if self.floats is not None:
            step = None if self.step is None else float(self.step)
            return FloatDistribution(float(low), float(high), log=bool(self.log), step=step)
        if isinstance(self.step, float):
            raise ValueError("must have a whole number as its step")
        return IntDistribution(int(low), int(high), log=bool(self.log), step=self.step or 1)


def _as_keys(entry: Any) -> Any:
    if not isinstance(entry, (list, Mapping)):
        raise ValueError(WAYS)
    return {"choices": entry} if isinstance(entry, list) else entry


DimensionKeys = Annotated[
    OneDimension, BeforeValidator(_as_keys, json_schema_input_type=Choices | OneDimension)
]


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
    distribution: BaseDistribution

    def count(self) -> int | None:
        """How many values there are; ``None`` for a continuous range."""
        d: Any = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, IntDistribution):
            return (d.high - d.low) // d.step + 1
        if d.step is not None:
            return round((d.high - d.low) / d.step) + 1
        return 1 if d.low == d.high else None

    def values(self) -> list[Value] | None:
        """All values, where a grid can have them; ``None`` otherwise."""
        d: Any = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if d.log or d.step is None:
            return None
        return [round(d.low + i * d.step, 12) for i in range(self.count() or 0)]

    def ends(self) -> list[Value]:
        """Values to try the key with: all choices, or the ends of the range."""
        d: Any = self.distribution
        return list(d.choices) if isinstance(d, CategoricalDistribution) else [d.low, d.high]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Value:
        """The trial's value."""
        d: Any = self.distribution
        if isinstance(d, CategoricalDistribution):
            chosen: Value = trial.suggest_categorical(self.name, d.choices)
            return chosen
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
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
            axes = []
            for dimension in dimensions:
                if (axis := dimension.values()) is None:
                    raise ConfigError(
                        f"space.{dimension.key}: a grid needs choices, an int or a step, got a "
                        "continuous range. Give it choices, or take another sampler."
                    )
                axes.append([(dimension.key, value) for value in axis])
            points += [Point(arm, dict(values)) for values in itertools.product(*axes)]
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
