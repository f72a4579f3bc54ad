import sys
from typing import Any, cast

import pytest

from alignlab.pipeline import progress
from alignlab.pipeline.worker_pool import Worker
from alignlab.plan.experiment import Job


def job(name: str, **spec: Any) -> Job:
    return Job(name, "all", None, {}, None, spec, {}, "")


def worker(named: str | Job | None, steps: tuple[int, int] | None = None) -> Worker:
    job_ = job(named) if isinstance(named, str) else named
    return Worker(0, cast(Any, None), cast(Any, None), job_, steps)


def test_lines_tell_what_is_at_work_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 40.0, 40.0, 40.0])  # made, too early, asked three times
    monkeypatch.setattr("alignlab.pipeline.progress.time.monotonic", clock.__next__)
    display = progress.Display(total=4, workers=2)
    display.update([worker("sft")])
    assert capsys.readouterr().err == ""
    display.finished_one(job("world"), 3.2)
    display.update([worker("sft", (50, 200)), worker("pool"), worker(None)])
    # 1.25 jobs in 40 s leave 2.75 jobs: 88 s.
    assert capsys.readouterr().err.splitlines() == [
        "[1/4] world done in 3 s",
        "[1/4] about 01:28 left; running: sft (step 50 of 200), pool",
    ]
    display.close()


def test_a_job_that_tunes_is_as_long_as_its_trials(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 40.0, 40.0, 40.0, 90.0, 90.0, 90.0])
    monkeypatch.setattr("alignlab.pipeline.progress.time.monotonic", clock.__next__)
    tuning, display = job("tuning", tune={"trials": 8}), progress.Display(3, 2, length=10)
    display.update([worker(tuning, (1, 4))])  # 2 of 8 trials in 40 s: the other 8 runs take 160 s
    display.finished_one(tuning, 80.0)
    display.update([worker("best", (1, 1))])  # 9 runs in 90 s
    assert [line.split(";")[0] for line in capsys.readouterr().err.splitlines()] == [
        "[0/3] about 02:40 left",
        "[1/3] tuning done in 80 s",
        "[1/3] about 00:10 left",
    ]
    display.close()


def test_bars_show_steps_where_there_are_any(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    display = progress.Display(total=2, workers=2)
    display.update([worker("sft"), worker(None)])
    display.update([worker("sft", (50, 200)), worker("pool")])
    bars: list[Any] = display._bars
    assert [str(bar).split("|")[0] for bar in bars] == ["  sft:  25%", "  pool 00:00"]
    assert "step 50 of 200" in str(bars[0])
    assert str(display._overall).startswith("0 of 2 jobs:  12%")
    display.update([worker(None), worker("pool")])
    assert str(bars[0]) == "  idle 00:00"
    display.close()
    capsys.readouterr()
