"""Points added by hand: read from words, enqueued once, run beside those of the design."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.plan.space import Point
from alignlab.results.tables import read_points
from alignlab.sweep.add import add_points, enqueue, point_of
from alignlab.sweep.run import _runs, run_sweep
from alignlab.sweep.spec import Sweep
from alignlab.sweep.study import BY_HAND, ERROR, SLOT, Slots, open_study
from tests.sweep.conftest import BETA, RANGE
from tests.sweep.test_run import RESULTS, Write, rows
from tests.test_cli import call

TPE = {"sampler": "tpe", "trials": 2, "space": RANGE}
RANDOM = {"sampler": "random", "trials": 2, "space": RANGE}
LR = "model.init_args.optimizer.init_args.lr"


def opened(sweep: Sweep) -> tuple[optuna.Study, Slots]:
    storage = optuna.storages.InMemoryStorage()
    study = open_study(sweep, storage)
    return study, Slots(sweep, study, storage, None)


def finish(slots: Slots, running: Any) -> float:
    assert slots.tell(running.trial, TrialState.COMPLETE, {}, [1.0, 1.0])
    beta: float = running.point.values[BETA]
    return beta


@pytest.mark.parametrize("text", ["beta=0.5", f"{BETA}=0.5", f"{BETA}=5.0e-1,arm=dpo"])
def test_a_point_is_named_by_keys_or_their_last_parts(load: Any, text: str) -> None:
    assert point_of(load(**TPE), text) == Point("dpo", {BETA: 0.5})


def test_a_value_is_of_the_spaces_type(load: Any) -> None:
    whole = load(**(TPE | {"space": {BETA: {"float": [0.1, 2.0]}, LR: {"int": [1, 5]}}}))
    values = point_of(whole, "beta=1,lr=2").values
    assert [(type(v), v) for v in values.values()] == [(float, 1.0), (int, 2)]
    choices = load(**(TPE | {"space": {BETA: [1.0, True]}}))
    assert type(point_of(choices, "beta=1").values[BETA]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beta", r"expected KEY=VALUE"),
        ("beta=[", r"expected KEY=VALUE"),
        ("gamma=1", r"gamma: not a key of the space\. Keys: model\.init_args\.beta"),
        ("arm=dpo", r"arm dpo needs model\.init_args\.beta too"),
        ("beta=0.5,arm=ppo", r"add arm=NAME, one of dpo"),
        ("beta=3", r"cannot be 3; the space has Float"),
        ("beta=high", r"cannot be high"),
        ("beta=true", r"cannot be True"),
    ],
)
def test_what_is_no_point_of_the_space_is_refused(load: Any, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        point_of(load(**TPE), text)


def test_an_arm_is_named_where_there_are_several(load: Any) -> None:
    arms = {"dpo": {}, "other": {"stage": "dpo", "space": {BETA: [4.0]}}}
    sweep = load(**(TPE | {"arms": arms}))
    assert point_of(sweep, "beta=4,arm=other") == Point("other", {BETA: 4.0})
    with pytest.raises(ConfigError, match="add arm=NAME, one of dpo, other"):
        point_of(sweep, "beta=0.5")
    study, slots = opened(sweep)
    enqueue(sweep, study, point_of(sweep, "beta=4,arm=other"))
    running = slots.next()
    assert running is not None
    assert running.point == Point("other", {BETA: 4.0})


@pytest.mark.parametrize("keys", [TPE, RANDOM], ids=["sampled", "design"])
def test_points_by_hand_run_beside_all_others_and_each_once(load: Any, keys: Any) -> None:
    sweep = load(**keys)
    study, slots = opened(sweep)
    assert enqueue(sweep, study, point_of(sweep, "beta=0.123")) == f"added arm dpo, {BETA} 0.123"
    assert "already (waiting)" in enqueue(sweep, study, point_of(sweep, "beta=0.123"))
    assert slots.begin() == []
    betas = []
    while (running := slots.next()) is not None:
        betas.append(finish(slots, running))
        if len(betas) == 1:  # while the study is running
            enqueue(sweep, study, point_of(sweep, "beta=0.456"))
    assert len(betas) == 4
    assert {0.123, 0.456} < set(betas)
    assert "already (complete)" in enqueue(sweep, study, point_of(sweep, "beta=0.123"))
    again = Slots(sweep, study, study._storage, None)  # the command is called again
    assert again.begin() == []
    assert again.next() is None
    by_hand = [trial for trial in study.trials if trial.user_attrs[SLOT] >= BY_HAND]
    assert len(by_hand) == 2
    runs = {job.hparams["beta"] for job in _runs(sweep, study)}
    assert runs == set(betas)  # none of their rows is foreign


@pytest.mark.parametrize("keys", [TPE, RANDOM], ids=["sampled", "design"])
def test_a_point_by_hand_that_failed_is_tried_again(load: Any, keys: Any) -> None:
    sweep = load(**keys)
    study, slots = opened(sweep)
    enqueue(sweep, study, point_of(sweep, "beta=0.123"))
    first = slots.next()
    assert first is not None
    assert slots.tell(first.trial, TrialState.FAIL, {ERROR: "a bug"})
    again = Slots(sweep, study, study._storage, None)
    again.begin()
    betas = []
    while (running := again.next()) is not None:
        betas.append(finish(again, running))
    assert 0.123 in betas
    assert len(betas) == 3


def test_a_point_of_the_design_is_not_added(load: Any) -> None:
    sweep = load()
    study, _ = opened(sweep)
    assert "a point of the design already" in enqueue(sweep, study, point_of(sweep, "beta=0.5"))
    assert study.trials == []


def test_the_command_works_on_the_study_of_a_sweep_that_has_not_begun(
    load: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load(**TPE)
    assert call("sweep", "try.yaml", "--add", "beta=0.2", "--add", "beta=0.3") == 0
    said = capsys.readouterr().err
    assert said.count(": added arm dpo, ") == 2
    assert "If none is running, continue the sweep: alignlab sweep try.yaml\n" in said
    assert Path("results/sweep-try/study.db").exists()
    assert add_points(Path("try.yaml"), ["beta=0.2"]) == 0
    assert "is trial 0 already (waiting)" in capsys.readouterr().err
    assert call("sweep", "try.yaml", "--add", "beta=0.2", "--dry-run") == 2
    assert "--add cannot be combined with --dry-run or --submit" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_that_has_ended_runs_the_point_that_was_added(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(space={"beta": {"float": [0.5, 4.0]}}, sampler="random", trials=2, seeds=[0])
    assert run_sweep(path, workers=1) == 0
    assert call("sweep", str(path), "--add", "beta=2.5") == 0
    assert run_sweep(path, workers=1) == 0
    assert "another configuration" not in capsys.readouterr().err
    last = rows()[-1]
    assert (len(rows()), last["state"], int(last["slot"]) >= BY_HAND) == (3, "complete", True)
    assert float(last["kl"]) == 0.4  # 1 / beta, as these made-up runs have it
    assert {p.hparams["beta"] for p in read_points(RESULTS / "points.csv")} > {2.5}
