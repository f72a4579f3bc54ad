"""What cannot be meant is refused in one line, before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.pipeline.jobs import check
from alignlab.pipeline.lock import results_lock
from alignlab.results.tables import read_points
from alignlab.sweep import run_sweep
from alignlab.sweep.spec import load_sweep
from tests.sweep.test_run import RESULTS, Write


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"trials": 3}, "3 trials by tpe, 2 seeds each, of"),
        ({"minutes": 5}, "5 minutes by tpe, 2 seeds each, of"),
        ({"trials": 3, "minutes": 0.5}, "3 trials or 0.5 minutes by tpe, 2 seeds each, of"),
    ],
    ids=str,
)
def test_a_dry_run_of_a_sampled_sweep(
    write: Write, capsys: pytest.CaptureFixture[str], limits: dict[str, Any], said: str
) -> None:
    sampled = {"sampler": "tpe", "space": {"beta": {"float": [0.5, 2.0]}}} | limits
    assert run_sweep(write(**sampled), dry_run=True) == 0
    assert said in capsys.readouterr().out


def remember(seconds: float) -> None:
    """What two workers' earlier runs left: 60 s of dpo, and the times of the inputs."""
    import csv

    from alignlab.results.tables import POINT_COLUMNS

    row = dict.fromkeys(POINT_COLUMNS, "1") | {"objective": "dpo", "run_id": "dpo-beta9-s0"}
    row |= {"experiment": "demo", "hparams": "{}", "seconds": str(seconds)}
    Path("results/demo").mkdir(parents=True)
    with Path("results/demo/points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, POINT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    Path("results/demo/stages.csv").write_text("stage,job,seconds\nsft,all,120.0\n")


@pytest.mark.parametrize(
    ("changes", "time"),
    [
        ({}, "time: about 4.0 minutes; disk: unknown, because only the tables of dpo are left"),
        ({"sampler": "tpe", "trials": 3}, "time: about 3.0 minutes; disk: unknown"),
        ({"sampler": "tpe", "minutes": 5}, "time: about 5.0 minutes; disk: unknown"),
        ({"minutes": 2}, "time: 2 minutes, plus the runs in progress at that time; disk: unknown"),
    ],
    ids=str,
)
def test_an_estimate_says_what_it_knows(
    write: Write, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], time: str
) -> None:
    """4 points or 3 trials, 2 seeds, 60 s each, over 2 workers; sft took 120 s, the pool is new."""
    path = write(**changes)
    remember(60.0)
    assert run_sweep(path, dry_run=True) == 0
    said = capsys.readouterr().out
    assert time in said
    assert "sft, pool to make; time: about 1.0 minutes and that of pool" in said


def test_one_slip_is_told_once(write: Write) -> None:
    space = {"beta": [1.0, 2.0, 3.0], "seconds": [0.0, 0.1]}
    with pytest.raises(ConfigError) as caught:
        run_sweep(write(arms={"dpo": {"args": {"betta": 3}}}, space=space), dry_run=True)
    assert str(caught.value).startswith("arm dpo, beta: 1.0 (and 3 more): call ")
    assert str(caught.value).count("betta") == 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.init_args.beta", -1.0, "DPO needs beta > 0, got -1.0. Set model.init_args.beta"),
        ("model.init_args.optimizer.init_args.lr", -0.1, "optimizer: Invalid learning rate: -0.1"),
        ("model.init_args.schedule.warmup_steps", -3, "needs schedule.warmup_steps >= 0, got -3"),
        ("data.init_args.micro_batch_size", 3, "is not a multiple of micro_batch_size 3"),
        ("model.init_args.reference", "adapter_off", "needs a policy with lora"),
        ("model.init_args.reference", "frozen", None),
    ],
)
def test_an_impossible_value_is_found_without_the_inputs(
    tmp_path: Path, key: str, value: Any, said: str | None
) -> None:
    path = tmp_path / "try.yaml"
    path.write_text(
        "experiment: experiments/quickstart\narms: {dpo: {}}\nsampler: grid\n"
        f"metrics: {{kl: minimize}}\nspace: {{{key}: [{value}]}}\n"
    )
    sweep = load_sweep(path)
    wrong = check(sweep.to_check())
    assert list(wrong) == ([] if said is None else [f"arm dpo, {key}: {value}"])
    assert said is None or said in wrong[f"arm dpo, {key}: {value}"]


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_where_the_results_should_go(write: Write, below: str) -> None:
    Path(write()).with_name("file").touch()
    folder = Path(f"file{below}")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"file is a file\. Name a folder"):
            run_sweep(Path("try.yaml"), results=folder, dry_run=dry_run)
    with pytest.raises(ConfigError, match=r"/proc/x: .*Name a folder that can be written"):
        results_lock(Path("/proc/x")).__enter__()
    with pytest.raises(DataError, match="no such table"):
        read_points(folder / "x" / "points.csv")
    assert not RESULTS.exists()
