"""``trials.csv``: a row for each slot, whatever was tried in it."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from alignlab.sweep.spec import Sweep
from alignlab.sweep.study import DIVERGED, ERROR, SLOT, STOPPED
from alignlab.sweep.table import summary, write_trials
from tests.sweep.test_trial_queue import Begin


def add(study: optuna.Study, slot: int | None, state: TrialState, **attrs: Any) -> None:
    values = [1.0, 0.25] if state is TrialState.COMPLETE else None
    attrs[SLOT] = slot
    study.add_trial(optuna.trial.create_trial(state=state, values=values, user_attrs=attrs))


def test_a_slot_has_the_row_of_its_complete_trial_or_of_its_last(
    begin: Begin, tmp_path: Path
) -> None:
    sweep: Sweep = begin().sweep
    study = optuna.create_study(directions=["maximize", "minimize"])
    add(study, 1, TrialState.FAIL, **{ERROR: "a bug"})
    add(study, 0, TrialState.FAIL, **{ERROR: "killed"})
    add(study, 0, TrialState.COMPLETE, **{STOPPED: "dominated"})
    add(study, None, TrialState.FAIL, **{ERROR: "another trial has its point"})
    add(study, 2, TrialState.COMPLETE, **{DIVERGED: "KL 4 > 3"})
    add(study, 1, TrialState.FAIL, **{ERROR: "the same bug"})
    path = tmp_path / "trials.csv"
    assert write_trials(path, sweep, study)
    assert path.read_text().split("\n") == [
        "slot,state,arm,params,reward,kl,note",
        "0,stopped,,{},1,0.25,dominated",
        "1,failed,,{},,,the same bug",
        "2,diverged,,{},1,0.25,KL 4 > 3",
        "",
    ]
    assert summary(sweep, study) == "trials: 1 stopped, 1 failed, 1 diverged"
    assert not write_trials(path, sweep, study)  # nothing new
