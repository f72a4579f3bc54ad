from typing import Any

import pytest

from alignlab.pipeline.foreman import Schedule, on_many_devices
from alignlab.plan.experiment import Job


def job(name: str, *needs: str, objective: str | None = None) -> Job:
    return Job(name, "all", None, {}, objective, {}, {n: (n,) for n in needs}, frozenset(), "")


def taken(schedule: Schedule) -> list[str]:
    names = []
    while (found := schedule.next()) is not None:
        names.append(found.name)
    return names


def test_a_job_waits_for_its_needs_and_stages_come_before_runs() -> None:
    sft, dpo, pool = job("sft"), job("dpo", "sft", objective="dpo"), job("pool", "sft", "gone")
    schedule = Schedule([sft, dpo, pool])
    assert taken(schedule) == ["sft"]
    schedule.finished(sft)
    assert taken(schedule) == ["pool", "dpo"]


def test_a_failure_takes_what_waits_for_it_however_far() -> None:
    jobs = [job("a"), job("b", "a"), job("c", "b"), job("d")]
    schedule = Schedule(jobs)
    assert schedule.drop("a", "why") == ["b", "c"]
    assert taken(schedule) == ["d"]


def test_a_job_to_try_again_is_first() -> None:
    first, second = job("first"), job("second")
    schedule = Schedule([first, second])
    assert schedule.next() is first
    schedule.again(first)
    assert taken(schedule) == ["first", "second"]


def test_all_can_be_dropped() -> None:
    schedule = Schedule([job("a"), job("b", "a")])
    assert schedule.drop_all() == ["a", "b"]
    assert schedule.next() is None


@pytest.mark.parametrize(
    ("trainer", "many"),
    [({}, False), ({"devices": 1}, False), ({"devices": 2}, True), ({"devices": "auto"}, True),
     ({"devices": [0, 1]}, True), ({"num_nodes": 2}, True)],
    ids=str,
)  # fmt: skip
def test_who_needs_a_process_of_its_own(trainer: dict[str, Any], many: bool) -> None:
    assert on_many_devices({"config": {"trainer": trainer}}) is many
    assert not on_many_devices({"call": "m.sft", "args": {"devices": 2}})
