"""Sweeps as several jobs: really run on this machine, and as the script that SLURM would get."""

import os
import stat
from pathlib import Path

import pytest
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.results.tables import read_points
from alignlab.sweep.submit import Work, start, submit_sweep
from tests.sweep.test_run import RESULTS, Write, rows, study

# submitit leaves it to the interpreter's end to notice that its jobs' processes are over.
quiet = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@quiet
def test_two_jobs_share_the_trials_and_what_they_found_is_drawn_as_one(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(seconds=0.2)
    assert submit_sweep(path, cluster="local", jobs=2, workers=1) == 0
    said = capfd.readouterr()
    assert "job-0: done" in said.err
    assert "job-1: done" in said.err
    assert "trials: 4 complete" in said.err
    complete = [t for t in study().trials if t.state is TrialState.COMPLETE]
    assert sorted(t.params["beta"] for t in complete) == [0.5, 1.0, 2.0, 4.0]
    tables = [read_points(table) for table in sorted(RESULTS.glob("job-*/points.csv"))]
    runs = [point.run_id for table in tables for point in table if point.step == 20]
    assert len(runs) == len(set(runs)) == 8
    assert [row["state"] for row in rows()] == ["complete"] * 4
    for name in ("frontier.csv", "frontier.svg", "report.html"):
        assert (RESULTS / name).exists()
    assert "16 checkpoints, 8 prompts" in said.out


@quiet
def test_a_job_that_fails_says_why(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    assert submit_sweep(write(space={"betta": [1.0]}), cluster="local", jobs=1, workers=1) == 2
    assert "job-0: see" in capfd.readouterr().err
    (log,) = (RESULTS / "submitted").glob("*_log.err")
    assert "error: arm dpo, betta: 1.0: call" in log.read_text()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``sbatch`` that keeps its script, and an ``srun``; where the script is kept."""
    kept, programs = tmp_path / "script.sh", tmp_path / "bin"
    programs.mkdir()
    for name, line in (("sbatch", f'cp "$1" {kept}; echo Submitted batch job 42'), ("srun", ":")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


def test_what_slurm_gets_is_one_array(slurm: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "try.yaml", tmp_path / "out", "postgresql://lab@host/db", workers=4)
    settings = {"timeout_min": 90, "cpus_per_task": 4, "slurm_partition": "gpu"}
    jobs = start(work, "slurm", 3, settings)
    assert [job.job_id for job in jobs] == ["42_0", "42_1", "42_2"]
    lines = slurm.read_text().splitlines()
    for asked in ("array=0-2%3", "cpus-per-task=4", "partition=gpu", "time=90"):
        assert f"#SBATCH --{asked}" in lines
    assert work.checkpoint(1).args == (1,)  # out of time, the same job goes on


def test_no_password_reaches_the_files_of_the_jobs(slurm: Path, write: Write) -> None:
    for url in ("postgresql://lab:s3cret@host/db", "postgresql://host/db?password=s3cret"):
        with pytest.raises(ConfigError, match=r"\*\*\*.*PGPASSWORD") as caught:
            submit_sweep(write(), cluster="slurm", jobs=2, storage=url)
        assert "s3cret" not in str(caught.value)
    assert not RESULTS.exists()


@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_machines_do_not_share_a_sqlite_file(write: Write, storage: str | None) -> None:
    with pytest.raises(ConfigError, match="locks do not hold across machines"):
        submit_sweep(write(), cluster="slurm", jobs=2, storage=storage)


@pytest.mark.parametrize(
    ("cluster", "setting", "said"),
    [
        ("local", "timeout", "expected NAME=VALUE"),
        ("local", "timeout=[", "expected NAME=VALUE"),
        ("local", "=3", "expected NAME=VALUE"),
        ("local", "patience=3", "--submit local: .*patience"),
        ("slurm", "timeout_min=3", "--submit slurm: .*srun"),
    ],
)
def test_what_submitit_refuses(write: Write, cluster: str, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        submit_sweep(
            write(), cluster=cluster, jobs=1, settings=[setting], storage="journal:///study.log"
        )


def test_a_file_where_the_results_should_go(write: Write) -> None:
    path = write()
    Path("file").touch()
    with pytest.raises(ConfigError, match=r"file is a file\. Name a folder"):
        submit_sweep(path, cluster="local", jobs=1, results=Path("file"))
