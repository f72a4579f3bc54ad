"""The space of a sweep: values of keys, points of their space, and samplers that choose points."""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from alignlab.errors import ConfigError
from alignlab.plan.schema import Keys, Number, Positive, Seed, Text, Value, check_count, key

MOST_TRIALS = 10_000  # of a sweep whose points are listed before the first of them
MOST_CHOICES = 1_000  # of one key
ARM = "arm"  # the parameter that says which arm a trial belongs to
WAYS = (
    "must be exactly one of a list of choices, {float: [low, high]} and {int: [low, high]}, the "
    "last two with log: true or step where wanted"
)


def _different(choices: list[Value]) -> list[Value]:
    # In Python true equals 1; here they differ, while 1 and 1.0 are one value.
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


def _as_keys(entry: Any) -> Any:
    if not isinstance(entry, (list, Mapping)):
        raise ValueError(WAYS)
    return {"choices": entry} if isinstance(entry, list) else entry


def _distribution(d: OneDimension) -> BaseDistribution:
    """The values as Optuna has them."""
    if sum(given is not None for given in (d.choices, d.floats, d.ints)) != 1:
        raise ValueError(WAYS)
    if d.choices is not None:
        if (d.log, d.step) != (None, None):
            raise ValueError("must have neither log nor step beside its choices")
        return CategoricalDistribution(d.choices)
    low, high = d.floats or d.ints or []
    if not low <= high:
        raise ValueError("must go from its low to its high end")
    if d.step is not None:
        steps = (high - low) / d.step
        if steps < 1 or not math.isclose(steps, round(steps), rel_tol=1e-9):
            raise ValueError("must lead from low to high in a whole number of steps")
    if d.floats is not None:
        step = None if d.step is None else float(d.step)
        return FloatDistribution(float(low), float(high), log=bool(d.log), step=step)
    if isinstance(d.step, float):
        raise ValueError("must have a whole number as its step")
    return IntDistribution(int(low), int(high), log=bool(d.log), step=d.step or 1)


DimensionKeys = Annotated[
    OneDimension,
    BeforeValidator(_as_keys, json_schema_input_type=Choices | OneDimension),
    AfterValidator(_distribution),
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
        if d.step is None:
            return 1 if d.low == d.high else None
        return round((d.high - d.low) / d.step) + 1

    def values(self) -> list[Value]:
        """All values.

        Raises:
            ConfigError: A continuous range.
        """
        d: Any = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if d.log or d.step is None:
            raise ConfigError(
                f"space.{self.key}: a grid needs choices, an int or a step, got a continuous "
                "range. Give it choices, or take another sampler."
            )
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
        """The point of ``trial``."""
        arm = trial.suggest_categorical(ARM, list(self.arms))
        return Point(arm, {d.key: d.suggest(trial) for d in self.arms[arm]})

    def params(self, point: Point) -> dict[str, Value]:
        """``point`` as the study's parameters."""
        return {ARM: point.arm} | {d.name: point.values[d.key] for d in self.arms[point.arm]}

    def middle(self, arm: str) -> Point:
        """Some point of ``arm``."""
        return Point(arm, {d.key: d.ends()[0] for d in self.arms[arm]})

    def grid(self) -> list[Point]:
        """Every combination of every arm.

        Raises:
            ConfigError: A dimension has no finite list of values, or they are too many.
        """
        check_count(self.count() or 0, MOST_TRIALS, "sampler grid: points")
        return [
            Point(arm, dict(zip([d.key for d in dimensions], values, strict=True)))
            for arm, dimensions in self.arms.items()
            for values in itertools.product(*(d.values() for d in dimensions))
        ]

    def count(self) -> int | None:
        """How many points there are; ``None`` where a range is continuous."""
        counts = [[d.count() for d in dimensions] for dimensions in self.arms.values()]
        if any(None in own for own in counts):
            return None
        return sum(math.prod(count or 0 for count in own) for own in counts)

    def drawn(self, samplers: Mapping[str, optuna.samplers.BaseSampler], n: int) -> list[Point]:
        """``n`` different points from the arms in turn, each arm with its own sampler.

        Fewer if the space has fewer points.
        """
        n = min(n, self.count() or n)
        points: dict[str, Point] = {}
        studies = {arm: optuna.create_study(sampler=samplers[arm]) for arm in self.arms}
        for turn in range(20 * n):  # a small space gives equal points again
            if len(points) == n:
                break
            arm = list(self.arms)[turn % len(self.arms)]
            trial = studies[arm].ask()
            point = Point(arm, {d.key: d.suggest(trial) for d in self.arms[arm]})
            studies[arm].tell(trial, 0.0)
            points.setdefault(repr(point), point)
        return list(points.values())


def space_of(common: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space of a sweep's file: an arm's own dimensions replace the common ones."""
    return Space(
        {
            arm: [
                Dimension(f"{arm}/{key}" if key in own else key, key, values)
                for key, values in {**common, **own}.items()
            ]
            for arm, own in arms.items()
        }
    )


def _patient(patience: int, min_delta: float = 0.0) -> optuna.pruners.PatientPruner:
    """Optuna's patient pruner without an inner pruner: ends a run that has stopped improving."""
    return optuna.pruners.PatientPruner(None, patience, min_delta)


LISTED = ("grid", "random", "qmc")  # their points are known before the first trial
SAMPLERS: dict[str, Callable[..., Any]] = {
    "grid": object,  # ours: all combinations
    "random": optuna.samplers.RandomSampler,
    "qmc": optuna.samplers.QMCSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "gp": optuna.samplers.GPSampler,
}
PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "patient": _patient,
}
DEFAULTS: dict[str, dict[str, int]] = {  # for spaces in which not every arm has every dimension
    "tpe": {"multivariate": True, "group": True, "constant_liar": True},
    "qmc": {"warn_independent_sampling": False, "scramble": True, "seed": 0},
}
LARGEST_SETTING = 10**6  # of a sampler's or pruner's whole numbers; some are sizes of lists
OF_TYPE: dict[str, Any] = {  # what a setting may be, by the annotations of Optuna's signatures
    "bool": bool,
    "int": Annotated[int, Field(ge=-LARGEST_SETTING, le=LARGEST_SETTING)],
    "float": Number,
    "str": Text,
    "None": None,
}


def _settings(target: Callable[..., Any]) -> type[Keys]:
    """The settings that a YAML file can give, numbers, switches and words."""
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        of_type = getattr(parameter.annotation, "__name__", parameter.annotation).split(" | ")
        if OF_TYPE.keys() >= set(of_type):
            kind = Seed if name == "seed" else reduce(or_, (OF_TYPE[one] for one in of_type))
            fields[name] = kind, ... if parameter.default is parameter.empty else parameter.default
    return create_model(target.__name__, __base__=Keys, **fields)


def build(name: str, settings: Mapping[str, Any]) -> Any:
    """Optuna's sampler or pruner of that name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return (SAMPLERS | PRUNERS)[name](**{**DEFAULTS.get(name, {}), **settings})


def _one_of(targets: Mapping[str, Callable[..., Any]]) -> Any:
    """Name and settings from ``tpe`` or ``{tpe: {n_startup_trials: 5}}``.

    The object is built when the file is read, so that a setting that its class refuses is reported
    before anything runs.
    """

    def with_settings(entry: Any) -> Any:
        entry = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or len(entry) != 1 or not targets.keys() >= set(entry):
            raise ValueError(
                f"must be one of {', '.join(targets)}, alone or with settings, as in "
                "{NAME: {SETTING: VALUE}}"
            )
        return entry

    def built(entry: BaseModel) -> tuple[str, dict[str, Any]]:
        ((name, settings),) = entry.model_dump(exclude_unset=True).items()
        try:
            build(name, settings)
        except TypeError as error:
            raise ValueError(str(error)) from None
        return name, settings

    fields: dict[str, Any] = {name: (_settings(target), None) for name, target in targets.items()}
    model = create_model("Named", __base__=Keys, **fields)
    word: Any = Annotated[str, Field(json_schema_extra={"enum": list(targets)})]
    before = BeforeValidator(with_settings, json_schema_input_type=word | model)
    return Annotated[model, before, AfterValidator(built)]


SamplerKeys = _one_of(SAMPLERS)
PrunerKeys = _one_of(PRUNERS)


def design(
    sampler: tuple[str, Mapping[str, Any]], space: Space, trials: int | None
) -> list[Point] | None:
    """The points of a grid, a random or a quasi-random design; ``None`` for other samplers."""
    name, settings = sampler
    if name == "grid":
        return space.grid()[:trials]
    if name not in LISTED:
        return None
    assert trials is not None
    check_count(trials, MOST_TRIALS, f"sampler {name}: trials")
    seed = settings.get("seed", 0)
    samplers = {
        arm: build(name, {**settings, "seed": seed + place}) for place, arm in enumerate(space.arms)
    }
    return space.drawn(samplers, trials)
