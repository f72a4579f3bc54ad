from pathlib import Path
from typing import Any

import pytest

from alignlab.pipeline.scheduler import JobQueue, on_many_devices
from alignlab.plan.experiment import Job, Plan


@pytest.fixture(autouse=True)
def nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.pipeline.records.record", lambda plan, job: None)


def job(name: str, *needs: str, objective: str | None = None) -> Job:
    return Job(name, "all", None, {}, objective, {}, {n: (n,) for n in needs}, "")


def queue_of(*jobs: Job) -> JobQueue:
    plan = Plan("demo", Path("demo"), Path("results"), (0,), {}, {}, (), {})
    return JobQueue(plan, jobs)


def taken(queue: JobQueue) -> list[str]:
    names = []
    while (found := queue.next()) is not None:
        names.append(found.name)
    return names


def test_a_job_waits_for_its_needs_and_stages_come_before_runs() -> None:
    sft, dpo, pool = job("sft"), job("dpo", "sft", objective="dpo"), job("pool", "sft", "gone")
    queue = queue_of(sft, dpo, pool)
    assert taken(queue) == ["sft"]
    queue.finished(sft)
    assert taken(queue) == ["pool", "dpo"]


def test_a_failure_takes_what_waits_for_it_however_far_and_in_whatever_order() -> None:
    jobs = [job("a"), job("run", "a", objective="dpo"), job("pool", "run"), job("d")]
    queue = queue_of(*jobs)
    assert taken(queue) == ["a", "d"]
    queue.failed(jobs[0], "why")
    queue.finished(jobs[3])
    assert taken(queue) == []
    assert queue.skipped() == ["pool", "run"]


def test_a_job_to_try_again_is_first() -> None:
    first, second = job("first"), job("second")
    queue = queue_of(first, second)
    assert queue.next() is first
    queue.put_back(first)
    assert taken(queue) == ["first", "second"]
    queue.finished(first)
    queue.finished(second)
    assert queue.skipped() == []


@pytest.mark.parametrize(
    ("trainer", "many"),
    [({}, False), ({"devices": 1}, False), ({"devices": 2}, True), ({"devices": "auto"}, True),
     ({"devices": [0, 1]}, True), ({"num_nodes": 2}, True)],
    ids=str,
)  # fmt: skip
def test_who_needs_a_process_of_its_own(trainer: dict[str, Any], many: bool) -> None:
    assert on_many_devices({"config": {"trainer": trainer}}) is many
    assert not on_many_devices({"call": "m.sft", "args": {"devices": 2}})
