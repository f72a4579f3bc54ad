"""Samplers and pruners by the names that a sweep's YAML gives them, and the points of a design."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna

from alignlab.errors import ConfigError
from alignlab.plan.keys import (
    MOST_TRIALS,
    SEED,
    SWITCH,
    Kind,
    check_count,
    checked,
    is_number,
    is_text,
)
from alignlab.sweep.space import Point, Space


def _patient(patience: int, min_delta: float = 0.0) -> optuna.pruners.PatientPruner:
    """Optuna's without another pruner inside: ends a run that has stopped improving."""
    return optuna.pruners.PatientPruner(None, patience, min_delta)


LISTED = ("grid", "random", "qmc")  # their points are known before the first trial
SAMPLERS: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
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
OF_TYPE = {  # what a setting may be, by the annotations of Optuna's signatures
    "bool": SWITCH,
    "int": Kind(
        "a whole number of at most a million",
        lambda value: type(value) is int and abs(value) <= LARGEST_SETTING,
        null=False,
    ),
    "float": Kind("a number", is_number, null=False),
    "str": Kind("a word", is_text, null=False),
    "None": Kind("null", lambda value: value is None),
}


def named(what: str, entry: Any, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``tpe`` or ``{tpe: {n_startup_trials: 5}}`` as name and settings.

    Raises:
        ConfigError: Another name, a setting that the class does not have, a value that it cannot
            have.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
    else:
        name, settings = entry, {}
    if not isinstance(name, str) or name not in known or not isinstance(settings, Mapping):
        raise ConfigError(
            f"{what}: expected one of {', '.join(known)}, alone or with settings as in "
            f"{{tpe: {{n_startup_trials: 5}}}}, got {entry!r}."
        )
    kinds, needed = _settings_of(known[name])
    return name, checked(settings, kinds, f"{what} {name}", needed=needed)


def _settings_of(target: Callable[..., Any] | None) -> tuple[dict[str, Kind], list[str]]:
    """The settings that a YAML file can give, numbers, switches and words; those that it must."""
    if target is None:
        return {}, []
    parameters = inspect.signature(target).parameters
    kinds = {}
    for name, parameter in parameters.items():
        of_type = getattr(parameter.annotation, "__name__", parameter.annotation).split(" | ")
        if name == "seed":
            kinds[name] = replace(SEED, null=False)
        elif OF_TYPE.keys() >= set(of_type):
            kinds[name] = _any_of([OF_TYPE[one] for one in of_type])
    return kinds, [name for name, p in parameters.items() if p.default is p.empty]


def _any_of(kinds: list[Kind]) -> Kind:
    said = " or ".join(kind.said for kind in kinds)
    return Kind(said, lambda value: any(kind.fits(value) for kind in kinds), null=False)


def try_out(what: str, build: Callable[[], Any]) -> None:
    """Call ``build`` now, so that a setting that the class refuses stops before anything exists.

    Raises:
        ConfigError: It refuses one.
    """
    try:
        build()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {' '.join(str(error).split())}") from None


def build_sampler(name: str, settings: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    """An Optuna sampler; TPE and others are set up for conditional spaces."""
    given = {"seed": seed, **settings}
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


def design(
    name: str, settings: Mapping[str, Any], space: Space, trials: int | None, seed: int
) -> list[Point] | None:
    """The points of a grid, a random or a quasi-random design; ``None`` for other samplers."""
    if name == "grid":
        return space.grid()[:trials]
    if name not in LISTED:
        return None
    assert trials is not None
    check_count(trials, MOST_TRIALS, f"sampler {name}: trials")
    samplers = {arm: build_sampler(name, settings, seed + i) for i, arm in enumerate(space.arms)}
    return space.drawn(samplers, trials)
