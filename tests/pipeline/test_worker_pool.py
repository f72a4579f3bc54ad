"""Worker processes that die or stop."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.pipeline import run_experiment, scheduler
from tests.pipeline.test_run import HERE, Write


def test_a_killed_workers_job_is_tried_once_more(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = {"witness": str(tmp_path / "witness")}
    assert run_experiment(write({"one": {"call": f"{HERE}.die_once", "args": args}})) == 0
    assert "one: its worker died (status -9); trying once more" in capsys.readouterr().err
    assert Path("results/demo/stages/one/all/words.txt").read_text() == "survived"


def test_a_job_of_which_another_process_was_killed_is_tried_once_more(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = {"witness": str(tmp_path / "witness")}
    assert run_experiment(write({"one": {"call": f"{HERE}.lose_a_rank_once", "args": args}})) == 0
    assert "one: its worker died (status 1); trying once more" in capsys.readouterr().err
    assert Path("results/demo/stages/one/all/words.txt").read_text() == "survived"


def test_a_worker_that_was_stopped_is_told_of_and_its_job_done_by_another(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(scheduler, "SILENCE", 4.0)
    monkeypatch.setattr(scheduler, "LOST", 6.0)
    args = {"witness": str(tmp_path / "witness")}
    assert run_experiment(write({"one": {"call": f"{HERE}.stop_once", "args": args}})) == 0
    said = capsys.readouterr().err
    assert "one: its worker (process " in said
    assert "gives no sign of life; it is killed after 6 s of silence" in said
    assert "one: its worker died (status -9); trying once more" in said
    assert Path("results/demo/stages/one/all/words.txt").read_text() == "survived"
