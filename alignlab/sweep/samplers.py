"""Samplers and pruners by the names that a sweep's YAML gives them, and the points of a design."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna

from alignlab.errors import ConfigError
from alignlab.sweep.space import Point, Space

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
    "patient": optuna.pruners.PatientPruner,
}


def named(what: str, entry: Any, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """``tpe`` or ``{tpe: {n_startup_trials: 5}}`` as name and settings.

    Raises:
        ConfigError: Another name, or a setting that the class does not have.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
    else:
        name, settings = entry, {}
    if name not in known or not isinstance(settings, Mapping):
        raise ConfigError(
            f"{what}: expected one of {', '.join(known)}, alone or with settings as in "
            f"{{tpe: {{n_startup_trials: 5}}}}, got {entry!r}."
        )
    target = known[name]
    try:
        if target is not None:
            inspect.signature(target).bind(**settings)
        elif settings:
            raise TypeError(f"{name} takes no settings")
    except TypeError as error:
        raise ConfigError(f"{what} {name}: {error}.") from None
    return name, dict(settings)


def build_sampler(name: str, settings: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    """An Optuna sampler; those of conditional spaces are told to expect them."""
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
    samplers = {arm: build_sampler(name, settings, seed + i) for i, arm in enumerate(space.arms)}
    return space.drawn(samplers, trials)
