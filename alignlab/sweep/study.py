"""A sweep's study in a storage: found again by what it is made of."""

import time
import warnings

import optuna
from optuna.study import StudyDirection

from alignlab.sweep.samplers import build_pruner, build_sampler
from alignlab.sweep.spec import Sweep
from alignlab.sweep.storage import Storage


def open_study(sweep: Sweep, storage: Storage) -> tuple[optuna.Study, bool]:
    """The study of this very definition, and whether it was made just now.

    Its name ends in a hash of arms, space, seeds, metrics and inputs. So trials that cannot be
    compared never share a study, and a changed sweep begins a new one, in which runs that are not
    affected are complete at once.
    """
    name = f"{sweep.name}-{sweep.definition[:8]}"
    sampler = _sampler(sweep)
    pruner = None if sweep.pruner is None else build_pruner(*sweep.pruner)
    directions = [
        StudyDirection.MAXIMIZE if direction == "maximize" else StudyDirection.MINIMIZE
        for direction in sweep.metrics.values()
    ]
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage.optuna,
            directions=directions,
            sampler=sampler,
            pruner=pruner,
        )
    except optuna.exceptions.DuplicatedStudyError:
        found = optuna.load_study(
            study_name=name, storage=storage.optuna, sampler=sampler, pruner=pruner
        )
        return found, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(sweep.metrics))
    return study, True


def _sampler(sweep: Sweep) -> optuna.samplers.BaseSampler:
    """For a design one that is never asked; else one that no two calls start alike."""
    name, settings = sweep.sampler
    if sweep.points is not None:
        return optuna.samplers.RandomSampler()
    seed = int(settings.get("seed", 0)) + time.time_ns() % 2**31
    return build_sampler(name, {**settings, "seed": seed % 2**31}, seed % 2**31)
