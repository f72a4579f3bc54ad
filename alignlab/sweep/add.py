"""``alignlab sweep --add``: enqueue points by hand, before, during or after a sweep."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution

from alignlab.errors import ConfigError
from alignlab.files import sha_of
from alignlab.pipeline.progress import say
from alignlab.plan.experiment import check_names
from alignlab.plan.overlay import key_and_value
from alignlab.plan.space import ARM, Dimension, Point
from alignlab.results.run_records import STUDY
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.storage import open_storage, shown
from alignlab.sweep.study import BY_HAND, SLOT, TAKEN, open_study


def add_points(
    path: Path, given: Sequence[str], *, results: Path | None = None, storage: str | None = None
) -> int:
    """Enqueue points in addition to those of the design or the sampler.

    Args:
        path: The sweep's YAML.
        given: ``key=value,...`` for each point: all dimensions of its arm, by their keys or the
            last parts of them, and ``arm`` where there are several.
        results: As in ``run_sweep``.
        storage: As in ``run_sweep``.

    Raises:
        ConfigError: An unknown key, a missing key, or a value outside of the space.
    """
    sweep = load_sweep(path, results)
    points = [point_of(sweep, text) for text in given]
    url = storage or sweep.keys.storage or f"sqlite:///{sweep.plan.results / STUDY}"
    with open_storage(url) as opened:
        study = open_study(sweep, opened)
        for point in points:
            say(f"{study.study_name} in {shown(url)}: {enqueue(sweep, study, point)}")
    options = [*(["--results", str(results)] if results else [])]
    options += ["--storage", shown(storage)] if storage else []
    command = shlex.join(["alignlab", "sweep", str(path), *options])
    say(f"A running call takes it up. If none is running, continue the sweep: {command}")
    return 0


def enqueue(sweep: Sweep, study: optuna.Study, point: Point) -> str:
    """Enqueue ``point`` unless the study has it already; returns a line that says which."""
    params = sweep.space.params(point)
    named = ", ".join(f"{key} {value}" for key, value in params.items())
    for trial in study.get_trials(deepcopy=False, states=TAKEN):
        if params in (trial.params, trial.system_attrs.get("fixed_params")):
            return f"{named} is trial {trial.number} already ({trial.state.name.lower()})"
    if point in (sweep.points or []):
        return f"{named} is a point of the design already"
    slot = BY_HAND + int(sha_of(params)[:5], 16)
    study.enqueue_trial(params, user_attrs={SLOT: slot})
    return f"added {named}"


def point_of(sweep: Sweep, text: str) -> Point:
    """The point that ``key=value,...`` spells.

    Raises:
        ConfigError: As ``add_points``.
    """
    said = f"--add {text}: expected KEY=VALUE,... such as beta=0.5,lr=1.0e-3."
    values = dict(key_and_value(pair, said) for pair in text.split(","))
    arms = sweep.space.arms
    arm = values.pop(ARM, next(iter(arms)) if len(arms) == 1 else None)
    if arm not in arms:
        raise ConfigError(f"--add {text}: add arm=NAME, one of {', '.join(arms)}.")
    own = {_name_in(text, key, arms[arm]): value for key, value in values.items()}
    missing = [d.key for d in arms[arm] if d.key not in own]
    if missing:
        raise ConfigError(f"--add {text}: arm {arm} needs {', '.join(missing)} too.")
    point = Point(str(arm), {d.key: _value(text, d, own[d.key]) for d in arms[arm]})
    check_names(point.arm, [point.values], f"--add {text}")
    return point


def _name_in(text: str, key: str, dimensions: Sequence[Dimension]) -> str:
    """The whole key of the space that ``key``, or the last part of a key, names."""
    found = [d.key for d in dimensions if key == d.key]
    found = found or [d.key for d in dimensions if key == d.key.rpartition(".")[2]]
    if len(found) != 1:
        listed = ", ".join(d.key for d in dimensions) or "none"
        what = "several keys end in it" if found else "not a key of the space"
        raise ConfigError(f"--add {text}: {key}: {what}. Keys: {listed}.")
    return found[0]


def _value(text: str, dimension: Dimension, value: Any) -> Any:
    """``value`` as the space spells it: a number gets the type of the equal choice."""
    space: Any = dimension.distribution
    if isinstance(space, CategoricalDistribution):
        alike = [
            c
            for c in space.choices
            if c == value and isinstance(c, bool) == isinstance(value, bool)
        ]
        fits, value = bool(alike), (alike or [value])[0]
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and space._contains(space.to_internal_repr(value))
        value = space.to_external_repr(float(value)) if fits else value
    if not fits:
        raise ConfigError(
            f"--add {text}: {dimension.key} cannot be {value}; the space has {space}. Extend it in "
            "the sweep's file: finished runs are not repeated."
        )
    return value
