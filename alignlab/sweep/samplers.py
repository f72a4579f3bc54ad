"""Samplers and pruners by the names that a sweep's YAML gives them, and the points of a design."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any

import optuna
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from alignlab.plan.schema import Keys, Number, Seed, Text, check_count
from alignlab.sweep.space import MOST_TRIALS, Point, Space


def _patient(patience: int, min_delta: float = 0.0) -> optuna.pruners.PatientPruner:
    """Optuna's without another pruner inside: ends a run that has stopped improving."""
    return optuna.pruners.PatientPruner(None, patience, min_delta)


def _grid(**_: object) -> None:
    """Ours: all combinations."""


LISTED = ("grid", "random", "qmc")  # their points are known before the first trial
SAMPLERS: dict[str, Callable[..., Any]] = {
    "grid": _grid,
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


def _one_of(targets: Mapping[str, Callable[..., Any]], build: Callable[..., Any]) -> Any:
    """``tpe`` or ``{tpe: {n_startup_trials: 5}}``: a name, alone or with settings.

    It is built when the file is read, so that a setting that the class refuses stops everything.
    """

    def with_settings(entry: Any) -> Any:
        entry = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or len(entry) != 1 or not targets.keys() >= set(entry):
            raise ValueError(
                f"must be one of {', '.join(targets)}, alone or with settings, as in "
                "{NAME: {SETTING: VALUE}}"
            )
        return entry

    def built(entry: BaseModel) -> BaseModel:
        try:
            build(*named(entry))
        except TypeError as error:
            raise ValueError(str(error)) from None
        return entry

    fields: dict[str, Any] = {name: (_settings(target), None) for name, target in targets.items()}
    model = create_model("Named", __base__=Keys, **fields)
    word: Any = Annotated[str, Field(json_schema_extra={"enum": list(targets)})]
    before = BeforeValidator(with_settings, json_schema_input_type=word | model)
    return Annotated[model, before, AfterValidator(built)]


def named(entry: BaseModel) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a sampler or pruner as a YAML file has them."""
    ((name, settings),) = entry.model_dump(exclude_unset=True).items()
    return name, settings


def build_sampler(name: str, settings: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """An Optuna sampler; TPE and others are set up for conditional spaces."""
    given = dict(settings)
    if name == "tpe":
        given = {"multivariate": True, "group": True, "constant_liar": True} | given
    if name == "qmc":
        given = {"warn_independent_sampling": False, "scramble": True} | given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](**given)


def build_pruner(name: str, settings: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """An Optuna pruner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PRUNERS[name](**settings)


SamplerKeys = _one_of(SAMPLERS, build_sampler)
PrunerKeys = _one_of(PRUNERS, build_pruner)


def design(
    name: str, settings: Mapping[str, Any], space: Space, trials: int | None
) -> list[Point] | None:
    """The points of a grid, a random or a quasi-random design; ``None`` for other samplers."""
    if name == "grid":
        return space.grid()[:trials]
    if name not in LISTED:
        return None
    assert trials is not None
    check_count(trials, MOST_TRIALS, f"sampler {name}: trials")
    seed = settings.get("seed", 0)
    samplers = {
        arm: build_sampler(name, {**settings, "seed": seed + place})
        for place, arm in enumerate(space.arms)
    }
    return space.drawn(samplers, trials)
