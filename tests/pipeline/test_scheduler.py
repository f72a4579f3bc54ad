from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.pipeline import scheduler
from alignlab.pipeline.scheduler import JobQueue, Scheduler, on_many_devices, processes_of
from alignlab.plan.experiment import Job, Plan
from alignlab.results.progress import read_progress


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


def test_one_objective_is_tuned_and_trained_before_the_next_and_needless_runs_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tuned(name: str) -> list[Job]:
        search = replace(job(name), key="tuning", spec={"tune": {}})
        runs = [
            replace(job(name, search.name, objective=name), key=f"best{budget}-s0", budget=budget)
            for budget in (1.0, 2.0)
        ]
        return [search, *runs]

    needless = {"ipo-best1.0-s0"}
    monkeypatch.setattr(Plan, "needless", lambda self, job: job.name in needless)
    dpo, ipo, sft = tuned("dpo"), tuned("ipo"), job("sft")
    queue = queue_of(*dpo, *ipo, sft)
    assert queue.next() is sft
    assert queue.next() is dpo[0]
    queue.finished(dpo[0])
    assert taken(queue) == ["dpo-best1.0-s0", "dpo-best2.0-s0", "ipo-tuning"]
    queue.finished(ipo[0])
    assert taken(queue) == ["ipo-best2.0-s0"]
    assert queue.skipped() == []


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
     ({"devices": [0, 1]}, True), ({"num_nodes": 2}, True),
     ({"devices": 1, "strategy": "auto"}, False), ({"devices": 1, "strategy": "ddp"}, True)],
    ids=str,
)  # fmt: skip
def test_who_needs_a_process_of_its_own(trainer: dict[str, Any], many: bool) -> None:
    assert on_many_devices({"config": {"trainer": trainer}}) is many
    assert not on_many_devices({"call": "m.sft", "args": {"devices": 2}})


@pytest.mark.parametrize(
    ("trainer", "count"),
    [({}, 1), ({"devices": 2}, 2), ({"devices": "2"}, 2), ({"devices": [0, 1, 3]}, 3),
     ({"devices": "auto"}, 4), ({"devices": -1}, 4), ({"devices": 8}, 4)],
    ids=str,
)  # fmt: skip
def test_a_run_has_a_process_for_each_device(trainer: dict[str, Any], count: int) -> None:
    assert processes_of({"config": {"trainer": trainer}}, most=4) == count


class Pool:
    """Workers that end their jobs one at a time, in the order in which they began."""

    def __init__(self, size: int, *_: Any) -> None:
        self.workers: list[Any] = [
            SimpleNamespace(number=n, job=None, progress=None) for n in range(size)
        ]
        self.at_once: list[list[str]] = []
        self.waits = 0  # without news, before the next job ends
        for worker in self.workers:
            worker.start = lambda job, message, own=worker: setattr(own, "job", job)

    def idle(self) -> list[Any]:
        return [worker for worker in self.workers if worker.job is None]

    def receive(self, timeout: float) -> Any:
        self.waits -= 1
        if self.waits >= 0:
            return None
        busy = [worker for worker in self.workers if worker.job is not None]
        self.at_once.append(sorted(worker.job.name for worker in busy))
        return busy[0], {"event": "done", "wrong_input": {}}

    def silent(self, seconds: float) -> list[Any]:
        return []

    def replace(self, old: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Watched(JobQueue):
    """Counts how often it is asked to give signs of life."""

    asked = 0

    def keep_alive(self) -> None:
        self.asked += 1


def carry_out(workers: int, devices: Sequence[int], waits: int = 0) -> tuple[Pool, Watched]:
    """Carry out jobs a, b ..., each on its number of devices."""
    jobs = [
        replace(job(name), spec={"config": {"trainer": {"devices": n}}})
        for name, n in zip("abcdef", devices, strict=False)
    ]
    plan = Plan("demo", Path("demo"), Path("results"), (0,), {}, {}, (), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "WorkerPool", Pool)
        patch.setattr(scheduler, "message", lambda *_, **__: {})
        own, queue = Scheduler(plan, workers, len(jobs), 0), Watched(plan, jobs)
        pool: Any = own._pool
        pool.waits = waits
        own.work(queue)
        own.display.close()
    return pool, queue


@pytest.mark.parametrize(
    ("workers", "devices", "at_once"),
    [
        (2, [2, 1, 1, 2], [["a"], ["b", "c"], ["c"], ["d"]]),
        (3, [1, 2, 2], [["a", "b"], ["b"], ["c"]]),
        (1, [4, 1], [["a"], ["b"]]),  # it has more than there are, so it is alone
    ],
)
def test_ranks_of_a_run_count_as_workers(
    workers: int, devices: list[int], at_once: list[list[str]]
) -> None:
    assert carry_out(workers, devices)[0].at_once == at_once


def test_a_queue_gives_signs_of_life_while_all_workers_are_busy() -> None:
    assert carry_out(1, [1], waits=20)[1].asked >= 20


def test_how_far_a_call_is_stands_in_a_file_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WorkerPool", Pool)
    monkeypatch.setattr(scheduler, "message", lambda *_, **__: {})
    monkeypatch.setattr(scheduler, "PROGRESS_EVERY", 0.0)
    monkeypatch.setattr(JobQueue, "diverged", lambda self: {"x": "KL 9 > 3"})
    plan = Plan("demo", Path("demo"), tmp_path, (0,), {}, {}, (), {})
    own = Scheduler(plan, 1, 2, 0)
    own.failures.failed["b"] = "FloatingPointError: loss is nan"
    own.work(JobQueue(plan, [job("a")]))
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.finished, found.total, found.at_work) == (1, 2, [])
    assert found.left.startswith("about ")
    assert found.failed == {"b": "FloatingPointError: loss is nan", "x": "KL 9 > 3"}
    own.close()
    assert read_progress(tmp_path) is None
