"""Whole sweeps over a fake experiment, with real worker processes, killed and continued."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.results.tables import read_frontier, read_points
from alignlab.sweep import run_sweep
from tests.pipeline.test_run import HERE, without_seconds

Write = Callable[..., Path]
SPACE = {"beta": [0.5, 1.0, 2.0, 4.0]}
RESULTS = Path("results/sweep-try")


def study(url: str = f"sqlite:///{RESULTS}/study.db") -> optuna.Study:
    return optuna.load_study(study_name=None, storage=url)


def rows(path: Path = RESULTS / "trials.csv") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_is_run_drawn_and_done(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_sweep(write()) == 0
    said = capsys.readouterr().err
    assert "results/demo: inputs, 2 of 6 jobs to do (sft 1, pool 1)" in said
    points = read_points(RESULTS / "points.csv")
    runs = [f"dpo-beta{beta}-s{seed}" for beta in ("0.5", "1", "2", "4") for seed in (0, 1)]
    assert [p.run_id for p in points if p.step == 20] == runs
    assert {p.experiment for p in points} == {"sweep-try"}
    found = study()
    assert found.metric_names == ["reward", "kl"]
    assert [t.state for t in found.trials] == [TrialState.COMPLETE] * 4
    # KL after the last step is 1 / beta for both seeds.
    assert [t.values[1] for t in found.trials] == [2.0, 1.0, 0.5, 0.25]
    own = [p.reward for p in points if p.step == 20 and p.hparams == {"beta": 2.0}]
    assert found.trials[2].values[0] == pytest.approx(sum(own) / 2, rel=1e-8)
    assert rows()[2] | {"reward": ""} == {
        "slot": "2", "state": "complete", "arm": "dpo", "params": '{"beta": 2.0}', "reward": "",
        "kl": "0.5", "note": "",
    }  # fmt: skip
    assert {row.objective for row in read_frontier(RESULTS / "frontier.csv")} >= {"dpo", "oracle"}
    made = "<pre>alignlab sweep try.yaml\nalignlab frontier results/sweep-try</pre>"
    assert made in (RESULTS / "report.html").read_text()
    before = (RESULTS / "points.csv").read_bytes()
    assert run_sweep(Path("try.yaml")) == 0
    assert (RESULTS / "points.csv").read_bytes() == before
    assert len(study().trials) == 4


@pytest.mark.parametrize(("own", "processes"), [(False, 1), (True, 2)])
def test_a_process_may_serve_one_run_or_all(write: Write, own: bool, processes: int) -> None:
    sweep = write(process_per_trial=own, space={"beta": [1.0, 2.0]}, seeds=[0])
    assert run_sweep(sweep, workers=1) == 0
    pids = [path.read_text() for path in RESULTS.glob("stages/dpo/*/pid.txt")]
    assert len(pids) == 2
    assert len(set(pids)) == processes
    assert [t.state for t in study().trials] == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_one_more_value_runs_one_more_trial_and_those_taken_out_are_named(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(write())
    before = without_seconds(RESULTS / "points.csv")
    stamps = {p: p.stat().st_mtime_ns for p in RESULTS.glob("stages/dpo/*/done.json")}
    assert run_sweep(write(space={"beta": [0.5, 1.0, 2.0, 4.0, 8.0]})) == 0
    after = without_seconds(RESULTS / "points.csv")
    assert [row for row in after if row in before] == before
    assert len(after) == len(before) + 4
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    names = optuna.get_all_study_names(f"sqlite:///{RESULTS}/study.db")
    assert len(names) == 2
    assert len(rows()) == 5
    assert "another configuration" not in capsys.readouterr().err
    assert run_sweep(write(space={"beta": [1.0, 2.0, 4.0, 8.0]})) == 0
    foreign = "runs of another configuration: dpo-beta0.5-s0, dpo-beta0.5-s1. Delete"
    assert foreign in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["tpe", {"nsgaii": {"population_size": 2}}])
def test_samplers_that_go_by_the_results(
    write: Write, sampler: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"sampler": sampler, "trials": 3, "seeds": [0]}
    assert run_sweep(write(space={"beta": {"float": [0.5, 8.0], "log": True}}, **keys)) == 0
    found = study().trials
    assert [t.state for t in found] == [TrialState.COMPLETE] * 3
    assert len({t.params["beta"] for t in found}) == 3
    assert (
        run_sweep(write(space={"beta": {"float": [0.5, 8.0], "log": True}}, **keys | {"trials": 4}))
        == 0
    )
    assert len(study().trials) == 4  # the same study goes on
    assert "another configuration" not in capsys.readouterr().err


def test_a_failed_trial_says_why_and_the_rest_goes_on(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"call": f"{HERE}.fail", "objective": "bad", "per_seed": True, "args": {"kind": "bug"}}
    arms = {"dpo": {"space": {"beta": [1.0]}}, "bad": {"space": {"kind": ["bug", "nan"]}}}
    sweep = write(more={"bad": bad}, arms=arms, space={}, seeds=[0])
    assert run_sweep(sweep) == 1
    said = capsys.readouterr().err
    assert "error: bad-kindbug-s0: RuntimeError: a bug" in said
    assert "Call again to continue" in said
    assert "Done in" not in said
    assert "trials: 1 complete, 1 failed, 1 diverged" in said
    assert [(r["state"], r["arm"]) for r in rows()] == [
        ("complete", "dpo"), ("failed", "bad"), ("diverged", "bad"),
    ]  # fmt: skip
    assert "RuntimeError: a bug" in rows()[1]["note"]
    assert "FloatingPointError: loss is not finite" in rows()[2]["note"]
    report = (RESULTS / "report.html").read_text()
    assert '<td class="text">bad-kindbug-s0: RuntimeError: a bug' in report
    assert run_sweep(sweep) == 1
    # What failed is tried again by the next call; what diverged would diverge again.
    assert [t.params["arm"] for t in study().trials] == ["dpo", "bad", "bad", "bad"]
    assert study().trials[3].params["bad/kind"] == "bug"


def test_a_run_whose_evaluation_is_no_number_has_diverged_and_the_rest_is_drawn(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = write(space={"wild": [False, True]}, arms={"dpo": {"args": {"beta": 1.0}}}, seeds=[0])
    assert run_sweep(sweep) == 1
    said = capsys.readouterr().err
    assert "FloatingPointError: the evaluation after step 20 has KL nan, " in said
    assert "these would diverge again" in said
    assert [row["state"] for row in rows()] == ["complete", "diverged"]
    assert [p.run_id for p in read_points(RESULTS / "points.csv")] == ["dpo-wildfalse-s0"] * 2
    assert {row.objective for row in read_frontier(RESULTS / "frontier.csv")} >= {"dpo", "oracle"}
    assert run_sweep(sweep) == 0  # nothing is tried again
    assert len(study().trials) == 2


@pytest.mark.parametrize(
    ("name", "said"), [("rewrad", r"Did you mean 'reward'\?"), ("seed", r"kl, kl_k1, reward")]
)
def test_a_metric_that_no_run_has_stops_before_anything(write: Write, name: str, said: str) -> None:
    for dry_run in (False, True):
        with pytest.raises(
            ConfigError, match=rf"try\.yaml: metric '{name}' is not measured .*{said}"
        ):
            run_sweep(write(metrics={name: "maximize"}), dry_run=dry_run)
    assert not Path("results").exists()


def test_a_metric_that_is_never_logged(write: Write) -> None:
    with pytest.raises(
        ConfigError, match=r"'val/gold' was never logged by arm 'dpo'; logged: .*kl"
    ):
        run_sweep(write(metrics={"val/gold": "maximize"}))
    assert run_sweep(write()) == 0  # what was trained is kept, and the study it failed in


def test_a_key_that_no_arm_has_stops_before_anything(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_sweep(write(space={"betta": [1.0]})) == 2
    assert "error: arm dpo, betta: 1.0: call" in capsys.readouterr().err
    assert not Path("results/demo").exists()
    assert not (RESULTS / "points.csv").exists()


def start(*words: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "alignlab.cli", "sweep", "try.yaml", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=cwd)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exactly_once(url: str, points: int) -> None:
    found = study(url).trials
    complete = [json.dumps(t.params) for t in found if t.state is TrialState.COMPLETE]
    assert len(complete) == len(set(complete)) == points
    assert {t.state for t in found} <= {TrialState.COMPLETE, TrialState.FAIL}


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_the_same(write: Write, kills: int) -> None:
    sweep = write(seconds=0.2)
    assert run_sweep(sweep, results=Path("whole")) == 0
    rng = random.Random(0)
    for kill in range(kills):
        process = start("--results", "killed")
        time.sleep(rng.uniform(0.5, 4))
        own = children(process.pid) if process.poll() is None else []
        if kill % 2 and own:  # a worker, and a moment later the parent
            signal_to(rng.choice(own))
            time.sleep(rng.uniform(0, 1))
        process.kill()
        process.communicate()
    process = start("--results", "killed")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert without_seconds(Path("killed/points.csv")) == without_seconds(Path("whole/points.csv"))
    assert Path("killed/frontier.csv").read_bytes() == Path("whole/frontier.csv").read_bytes()
    exactly_once("sqlite:///killed/study.db", 4)


def signal_to(pid: int) -> None:
    import os

    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_folders_share_a_study(write: Write, tmp_path: Path, kind: str) -> None:
    write(seconds=0.1)
    url = f"{kind}:///{tmp_path}/shared.db"
    processes = [start("--storage", url, "--results", name) for name in ("one", "two")]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    tables = [path for path in (Path("one/points.csv"), Path("two/points.csv")) if path.exists()]
    runs = [p.run_id for table in tables for p in read_points(table)]  # one may come too late
    assert len(runs) == 2 * len(set(runs)) == 16  # two checkpoints each
