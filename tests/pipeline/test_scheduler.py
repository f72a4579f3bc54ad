from typing import Any

import pytest

from alignlab.pipeline.scheduler import JobQueue, on_many_devices
from alignlab.plan.jobs import Job


def job(name: str, *needs: str, objective: str | None = None) -> Job:
    return Job(name, "all", None, {}, objective, {}, {n: (n,) for n in needs}, "")


def taken(queue: JobQueue) -> list[str]:
    names = []
    while (found := queue.next()) is not None:
        names.append(found.name)
    return names


def test_a_job_waits_for_its_needs_and_stages_come_before_runs() -> None:
    sft, dpo, pool = job("sft"), job("dpo", "sft", objective="dpo"), job("pool", "sft", "gone")
    queue = JobQueue([sft, dpo, pool])
    assert taken(queue) == ["sft"]
    queue.finished(sft)
    assert taken(queue) == ["pool", "dpo"]


def test_a_failure_takes_what_waits_for_it_however_far() -> None:
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d")]
    queue = JobQueue(jobs)
    assert queue.drop("a", "why") == ["b", "c"]
    assert taken(queue) == ["d"]


def test_a_job_to_try_again_is_first() -> None:
    first, second = job("first"), job("second")
    queue = JobQueue([first, second])
    assert queue.next() is first
    queue.again(first)
    assert taken(queue) == ["first", "second"]


def test_all_can_be_dropped() -> None:
    queue = JobQueue([job("a"), job("b", "a")])
    assert queue.drop_all() == ["a", "b"]
    assert queue.next() is None


@pytest.mark.parametrize(
    ("trainer", "many"),
    [({}, False), ({"devices": 1}, False), ({"devices": 2}, True), ({"devices": "auto"}, True),
     ({"devices": [0, 1]}, True), ({"num_nodes": 2}, True)],
    ids=str,
)  # fmt: skip
def test_who_needs_a_process_of_its_own(trainer: dict[str, Any], many: bool) -> None:
    assert on_many_devices({"config": {"trainer": trainer}}) is many
    assert not on_many_devices({"call": "m.sft", "args": {"devices": 2}})
