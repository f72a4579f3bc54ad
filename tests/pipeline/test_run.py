"""Whole runs of a fake experiment, with real worker processes, killed and continued."""

import csv
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.pipeline import run_experiment
from alignlab.results.tables import POINT_COLUMNS, read_frontier, read_points

ROOT = Path(__file__).parents[2]
HERE = "tests.pipeline.fake_stages"

Write = Callable[..., Path]


def stages(seconds: float = 0.0) -> dict[str, Any]:
    return {
        "sft": {"call": f"{HERE}.write_words", "args": {"words": ["a"], "seconds": seconds}},
        "pool": {"call": f"{HERE}.pool", "needs": ["sft"]},
        "dpo": {
            "call": f"{HERE}.train",
            "objective": "dpo",
            "needs": ["sft"],
            "per_seed": True,
            "grid": {"beta": [0.5, 2.0]},
            "args": {"policy": "{sft}", "seed": "{seed}", "seconds": seconds},
        },
    }


def without_seconds(points: Path) -> list[list[str]]:
    with points.open(newline="") as file:
        rows = list(csv.reader(file))
    at = POINT_COLUMNS.index("seconds")
    return [[cell for i, cell in enumerate(row) if i != at] for row in rows]


def files_of(results: Path) -> dict[str, tuple[int, int]]:
    found = [p for p in results.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ino) for p in found}


FRONTIER = {"needs": ["pool"]}


def test_a_run_makes_tables_and_a_second_call_does_nothing(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_experiment(write(frontier=FRONTIER)) == 0
    said = capsys.readouterr().err
    assert "6 of 6 jobs to do (sft 1, pool 1, dpo 4)" in said
    assert "reward (95 % interval)" in said
    results = Path("results/demo")
    assert "<pre>alignlab run demo\nalignlab frontier" in (results / "report.html").read_text()
    points = read_points(results / "points.csv")
    runs = [f"dpo-beta{beta}-s{seed}" for beta in ("0.5", "2") for seed in (0, 1)]
    assert [(p.run_id, p.step) for p in points] == [(run, s) for run in runs for s in (10, 20)]
    last = points[-1]
    assert (last.experiment, last.objective, last.seed) == ("demo", "dpo", 1)
    assert (last.hparams, last.kl, last.n_samples) == ({"beta": 2.0}, 0.5, 32)
    assert {row.objective for row in read_frontier(results / "frontier.csv")} >= {"dpo", "oracle"}
    assert (results / "frontier.png").exists()
    assert yaml.safe_load((results / "configs" / f"{runs[0]}.yaml").read_text())["args"] == {
        "policy": "results/demo/stages/sft/all",
        "seed": 0,
        "seconds": 0.0,
        "beta": 0.5,
    }
    with (results / "stages.csv").open(newline="") as file:
        times = list(csv.DictReader(file))
    assert [row["stage"] for row in times] == ["sft", "pool", *["dpo"] * 4]
    assert [row["job"] for row in times[:3]] == ["all", "all", "beta0.5-s0"]
    assert all(float(row["seconds"]) >= 0 for row in times)
    before = files_of(results)
    assert run_experiment(Path("demo")) == 0
    assert "Nothing to do" in capsys.readouterr().err
    assert files_of(results) == before


def test_other_seeds_keep_their_rows(write: Write) -> None:
    experiment = write(frontier=FRONTIER)
    for seeds in ([0, 1], [2], [0]):
        assert run_experiment(experiment, seeds=seeds) == 0
    with Path("results/demo/stages.csv").open(newline="") as file:
        timed = [row["job"] for row in csv.DictReader(file) if row["stage"] == "dpo"]
    made = Path("results/demo/configs/commands.txt").read_text().splitlines()
    assert made == [f"alignlab run demo --seeds {seeds}" for seeds in ("0,1", "2")]
    points = read_points(Path("results/demo/points.csv"))
    assert sorted(f"dpo-{job}" for job in timed) == sorted({point.run_id for point in points})
    assert {point.seed for point in points} == {0, 1, 2}


def test_weights_are_not_needed_once_rows_stand(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write(frontier=FRONTIER))
    before = without_seconds(Path("results/demo/points.csv"))
    subprocess.run(["rm", "-r", "results/demo/stages"], check=True)
    capsys.readouterr()
    assert run_experiment(Path("demo")) == 0
    assert "Nothing to do" in capsys.readouterr().err
    # One more grid point needs the upstream stages again, but none of the finished runs.
    more = stages()
    more["dpo"]["grid"] = {"beta": [0.5, 2.0, 4.0]}
    assert run_experiment(write(more, frontier=FRONTIER)) == 0
    assert "4 of 8 jobs to do (sft 1, pool 1, dpo 2)" in capsys.readouterr().err
    after = without_seconds(Path("results/demo/points.csv"))
    assert [row for row in after if row[2] in {r[2] for r in before}] == before
    assert len(after) == len(before) + 4


def test_a_deleted_figure_is_drawn_again_and_nothing_else(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write(frontier=FRONTIER))
    before = (Path("results/demo/frontier.csv")).read_bytes()
    Path("results/demo/frontier.csv").unlink()
    capsys.readouterr()
    assert run_experiment(Path("demo")) == 0
    assert "0 of 6 jobs to do" in capsys.readouterr().err
    assert Path("results/demo/frontier.csv").read_bytes() == before


def test_only_force_and_seeds(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    demo = write(frontier=FRONTIER)
    assert run_experiment(demo, only="pool") == 0
    assert "2 of 6 jobs to do (sft 1, pool 1)" in capsys.readouterr().err
    assert run_experiment(demo, only="dpo", seeds=[1]) == 0
    assert "2 of 4 jobs to do (dpo 2)" in capsys.readouterr().err
    assert not Path("results/demo/frontier.csv").exists()
    assert run_experiment(demo, only="frontier") == 0
    assert Path("results/demo/frontier.csv").exists()
    capsys.readouterr()
    assert run_experiment(demo, only="dpo", seeds=[1], force=True) == 0
    assert "2 of 4 jobs to do (dpo 2)" in capsys.readouterr().err
    assert run_experiment(demo, only="pool,dpo", seeds=[1], force=True) == 0
    assert "3 of 4 jobs to do (pool 1, dpo 2)" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"no stage 'rm'\. Stages: sft, pool, dpo, frontier"):
        run_experiment(demo, only="dpo,rm")


def test_objectives_without_a_pool_are_noted_before_they_run(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write())
    said = capsys.readouterr().err
    assert said.index("needs a pool of the reference's samples") < said.index("jobs to do")
    assert run_experiment(write(frontier=FRONTIER)) == 0
    assert "needs a pool" not in capsys.readouterr().err


def test_rows_of_another_configuration_are_kept_and_named(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write(), only="dpo")
    changed = stages()
    changed["dpo"]["grid"] = {"beta": [0.5, 8.0]}
    capsys.readouterr()
    run_experiment(write(changed), only="dpo", seeds=[0])
    said = capsys.readouterr().err
    assert "another configuration: dpo-beta0.5-s1, dpo-beta2-s0, dpo-beta2-s1." in said
    assert len(read_points(Path("results/demo/points.csv"))) == 10


@pytest.mark.parametrize(("kind", "status"), [("input", 2), ("bug", 1), ("disk", 1), ("kill", 1)])
def test_a_failure_stops_what_depends_on_it_and_nothing_else(
    write: Write, capsys: pytest.CaptureFixture[str], kind: str, status: int
) -> None:
    broken = {
        "bad": {"call": f"{HERE}.fail", "args": {"kind": kind}},
        "after": {
            "call": f"{HERE}.write_words",
            "needs": ["bad"],
            "args": {"words": ["{bad}"]},
        },
        "other": {"call": f"{HERE}.write_words", "args": {"words": ["x"]}},
    }
    assert run_experiment(write(broken), workers=1) == status
    said = capsys.readouterr().err
    reason = {
        "input": "error: bad: rows.jsonl: no usable row\n",
        "bug": "error: bad: RuntimeError: a bug (log: results/demo/stages/logs/bad.log)",
        "disk": "No space left on device. What is finished is kept: make room and call again. (log",
        "kill": "error: bad: its worker died 2 times (status -9)",
    }
    advice = "correct this and call again" if kind == "input" else "Call again to continue"
    assert advice in said
    assert reason[kind] in said
    assert "Skipped, because they need jobs that failed: after." in said
    assert "Traceback" not in said
    assert Path("results/demo/stages/other/all/words.txt").read_text() == "x"
    if kind == "bug":
        assert "RuntimeError: a bug" in Path("results/demo/stages/logs/bad.log").read_text()


@pytest.mark.parametrize(
    ("call", "args", "said"),
    [
        ("no.such.module", {}, "cannot be found: No module named 'no'"),
        (f"{HERE}.nothing", {}, "has no attribute 'nothing'"),
        (f"{HERE}.write_words", {"word": ["a"]}, "missing a required argument: 'words'"),
    ],
)
def test_a_call_that_cannot_be_made_is_bad_input(
    write: Write, capsys: pytest.CaptureFixture[str], call: str, args: dict[str, Any], said: str
) -> None:
    assert run_experiment(write({"one": {"call": call, "args": args}})) == 2
    assert said in capsys.readouterr().err
    assert not Path("results").exists()


def test_input_that_is_refused_leaves_nothing_of_a_first_call_alone(write: Write) -> None:
    bad = {"bad": {"call": f"{HERE}.fail", "args": {"kind": "input"}}}
    assert run_experiment(write(bad), workers=1) == 2
    assert not Path("results").exists()
    Path("results/demo").mkdir(parents=True)
    assert run_experiment(Path("demo"), workers=1) == 2
    assert Path("results/demo/stages/bad/all/job.json").is_file()


def test_wrong_configs_are_all_told_before_anything_is_done(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "sft": {"call": f"{HERE}.write_words", "args": {"words": []}},
        "good": {"fit": "good.yaml", "needs": ["sft"]},
        "bad": {"fit": "bad.yaml", "needs": ["good"], "grid": {"model.init_args.beta": [1, "x"]}},
        "ugly": {"call": f"{HERE}.write_words", "needs": ["good"], "args": {"wordz": []}},
    }
    model = {"class_path": "alignlab.objectives.dpo.DPO"}
    init = {
        "policy": {"source": "{sft}"},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
    }
    data = {
        "class_path": "alignlab.data.modules.PreferenceData",
        "init_args": {"source": "x.jsonl", "batch_size": 1},
    }
    good = {"model": {**model, "init_args": init}, "data": data}
    bad = {"model": {**model, "init_args": init | {"policy": {"source": "{good}"}}}, "data": data}
    write(content)
    (tmp_path / "demo" / "good.yaml").write_text(yaml.safe_dump(good))
    (tmp_path / "demo" / "bad.yaml").write_text(yaml.safe_dump(bad | {"trainer": {"max": 1}}))
    assert run_experiment(Path("demo"), workers=2) == 2
    said = capsys.readouterr().err
    assert "error: bad-beta1: unknown key trainer.max, did you mean" in said
    assert "error: bad-betax: model.init_args.beta must be a number" in said
    assert "error: ugly: call" in said
    assert "No job was started, because the settings of all jobs are checked first." in said
    assert "Skipped" not in said
    assert not Path("results").exists()


def test_leftovers_of_a_killed_write_are_removed(write: Write) -> None:
    folder = Path("results/demo/points")
    folder.mkdir(parents=True)
    (folder / ".points.csv.123.tmp").write_text("half")
    train = Path("results/demo/stages/dpo/s0/train")
    train.mkdir(parents=True)
    (train.parent / "done.json").touch()  # its worker was killed just behind it
    (train / "last.ckpt").touch()
    run_experiment(write(), only="sft")
    assert [*folder.iterdir(), *train.iterdir()] == []


def start(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "alignlab.cli", "run", "demo", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_is_one_line_and_status_130(write: Write) -> None:
    write({"one": {"call": f"{HERE}.write_forever"}})
    # A shell's background job, such as a test run may be, hands an ignored Ctrl-C down.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start()
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for(Path("results/demo/stages/one/all/now").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "error: interrupted; continue with: alignlab run demo"
    assert "Traceback" not in said


def kill_and_continue(kills: int) -> list[list[str]]:
    """Start the experiment over and over, kill it at random moments, then let it end."""
    rng = random.Random(0)
    for _ in range(kills):
        process = start("--results", "killed")
        time.sleep(rng.uniform(0.2, 2.5))
        process.kill()
        process.communicate()
    process = start("--results", "killed")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return without_seconds(Path("killed/points.csv"))


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_ends_with_the_same_tables(write: Write, kills: int) -> None:
    demo = write(stages(seconds=0.2), frontier=FRONTIER)
    assert run_experiment(demo, results=Path("whole")) == 0
    assert kill_and_continue(kills) == without_seconds(Path("whole/points.csv"))
    tables = [Path(folder) / "frontier.csv" for folder in ("whole", "killed")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert [p.name for p in Path("killed").rglob("*.tmp")] == []
