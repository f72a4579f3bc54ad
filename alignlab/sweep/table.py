"""``trials.csv``: every trial of a study with its parameters, state and metrics."""

import json
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from alignlab.plan.space import ARM
from alignlab.results.csv_tables import write_table
from alignlab.sweep.spec import Sweep
from alignlab.sweep.study import DIVERGED, ERROR, SLOT, STOPPED


def write_trials(path: Path, sweep: Sweep, study: optuna.Study) -> bool:
    """Replace ``path`` by one row per slot: its complete trial, or the last that failed.

    Returns:
        Whether the table changed.
    """
    rows = [_row(sweep, trial) for trial in last_of_slots(study)]
    columns = ["slot", "state", "arm", "params", *sweep.keys.metrics, "note"]
    return write_table(path, rows, columns)


def last_of_slots(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """One trial of each slot, in their order: the complete one, else the last."""
    slots: dict[int, optuna.trial.FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get(SLOT)
        standing = slots.get(slot) if slot is not None else None
        if slot is not None and (standing is None or standing.state is not TrialState.COMPLETE):
            slots[slot] = trial
    return [slots[slot] for slot in sorted(slots)]


def summary(sweep: Sweep, study: optuna.Study) -> str:
    """How the trials ended, in a line."""
    states = Counter(_state(trial) for trial in last_of_slots(study))
    return "trials: " + ", ".join(f"{count} {state}" for state, count in states.items())


def _row(sweep: Sweep, trial: optuna.trial.FrozenTrial) -> dict[str, object]:
    params = {name: value for name, value in trial.params.items() if name != ARM}
    values = trial.values if trial.state is TrialState.COMPLETE else None
    attrs = trial.user_attrs
    return {
        "slot": attrs[SLOT],
        "state": _state(trial),
        "arm": trial.params.get(ARM, ""),
        "params": json.dumps(params, sort_keys=True),
        **{
            metric: "" if values is None else f"{values[place]:.9g}"
            for place, metric in enumerate(sweep.keys.metrics)
        },
        "note": "; ".join(attrs[kind] for kind in (DIVERGED, STOPPED, ERROR) if kind in attrs),
    }


def _state(trial: optuna.trial.FrozenTrial) -> str:
    """Optuna's name of the state, or ``stopped`` or ``diverged`` if a run ended early."""
    if trial.state in (TrialState.FAIL, TrialState.COMPLETE) and DIVERGED in trial.user_attrs:
        return "diverged"
    if trial.state is TrialState.COMPLETE and STOPPED in trial.user_attrs:
        return "stopped"
    return {TrialState.FAIL: "failed"}.get(trial.state, trial.state.name.lower())
