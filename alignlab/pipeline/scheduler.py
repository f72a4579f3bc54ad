"""Scheduling: gives jobs to workers, takes what they report, drops what a failure affects."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from alignlab.pipeline.messages import CHECK, FRONTIER, log_file
from alignlab.pipeline.progress import Display
from alignlab.pipeline.worker_pool import Worker, WorkerPool
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job

TRIES = 2  # a killed worker's job is given to another worker once
SILENCE, LOST = 30.0, 600.0  # seconds without a sign of life: until a warning, until it is killed
NOT_FINITE = "FloatingPointError"  # the exception that marks a diverged run


@dataclass
class Failures:
    """What went wrong, and what could not be done because of it."""

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    input_only: bool = True

    @property
    def advice(self) -> str:
        """What to do: retrying helps neither bad input nor a diverged run."""
        if self.input_only:
            return "What is finished stays finished: correct this and call again."
        if all(why.startswith(NOT_FINITE) for why in self.failed.values()):
            return "What is finished stays finished; these would diverge again."
        return "Call again to continue: what is finished stays finished."

    @property
    def status(self) -> int:
        """Exit status of the whole run."""
        return (2 if self.input_only else 1) if self.failed else 0


class Queue(Protocol):
    """Where the scheduler takes jobs from: a ``JobQueue``, or a sweep's ``TrialQueue``."""

    def next(self) -> Job | None:
        """A job that may start now, if there is one."""

    def over(self) -> bool:
        """Whether no job can come any more, once nobody is at work."""

    def again(self, job: Job) -> None:
        """``job`` has to be done again, soon."""

    def finished(self, job: Job) -> None:
        """``job`` left its output."""

    def drop(self, name: str, why: str) -> list[str]:
        """``name`` failed; the names of what waited for it and cannot be done."""

    def drop_all(self) -> list[str]:
        """Nothing more shall be done; the names of what waited."""

    def measured(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """``job`` was evaluated at ``step``; why it should stop, if it should."""


class JobQueue:
    """Which job of a list may start next.

    Args:
        jobs: To do; a job waits for those of its needs that are among them. Stages come before
            the frontier runs, each in the given order: something may be waiting for a stage, but
            for a run only the frontier does, and many short jobs leave no worker idle at the end.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        ordered = sorted(jobs, key=lambda job: job.objective is not None)
        self.waiting = {job.name: job for job in ordered}
        self._unfinished = set(self.waiting)

    def next(self) -> Job | None:
        """Take the first job whose needs are all there."""
        for job in self.waiting.values():
            if not _needs(job) & self._unfinished:
                return self.waiting.pop(job.name)
        return None

    def over(self) -> bool:
        """True: what still waits would wait for ever."""
        return True

    def again(self, job: Job) -> None:
        """Put ``job`` back, before all others."""
        self.waiting = {job.name: job, **self.waiting}

    def finished(self, job: Job) -> None:
        """``job`` left its output."""
        self._unfinished.discard(job.name)

    def drop(self, name: str, why: str) -> list[str]:
        """Take out ``name``, which failed, and everything that waits for it; name what waited."""
        self.waiting.pop(name, None)
        lost, names = {name}, []
        for other, waiting in list(self.waiting.items()):
            if _needs(waiting) & lost:
                lost.add(other)
                names.append(other)
                del self.waiting[other]
        return names

    def drop_all(self) -> list[str]:
        """Take out everything that waits, and name it."""
        names = list(self.waiting)
        self.waiting.clear()
        return names

    def measured(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """None: a pipeline's runs are never stopped early."""


def _needs(job: Job) -> set[str]:
    return {name for names in job.needs.values() for name in names}


def on_many_devices(spec: dict[str, Any]) -> bool:
    """Whether a job's training has, or may have, more than one process."""
    trainer = (spec.get("config") or {}).get("trainer") or {}
    return trainer.get("devices", 1) not in (1, "1") or trainer.get("num_nodes", 1) != 1


def own_job(name: str, spec: dict[str, Any]) -> Job:
    """A job that is no stage's: checking the configs, drawing the frontier."""
    return Job(name, "all", None, {}, None, {name: spec}, {}, "")


def with_check(plan: Plan, jobs: Sequence[Job]) -> list[Job]:
    """``jobs`` behind a check of their configs: one of each grid point, for all seeds are alike."""
    kinds = {(job.stage, str(job.hparams)): job for job in reversed(jobs)}
    specs = {job.name: plan.to_check(job) for job in reversed(kinds.values())}
    behind = [replace(job, needs={**job.needs, CHECK: (CHECK,)}) for job in jobs]
    return [own_job(CHECK, specs), *behind] if jobs else []


class Scheduler:
    """Gives jobs to workers until none is left.

    Args:
        plan: Whose jobs they are.
        pool: The workers.
        display: Shows how far they are.
        message: Makes the message for a worker from a job and whether this is its first try.
        finished: Called with each job that left its output.
        one_each: Replace each worker after one stage's job. After a run on several devices this
            always happens, because a process can be a rank of one group only.
    """

    def __init__(
        self,
        plan: Plan,
        pool: WorkerPool,
        display: Display,
        message: Callable[[Job, bool], dict[str, Any]],
        finished: Callable[[Job], None],
        *,
        one_each: bool = False,
    ) -> None:
        self._plan, self._pool, self._display = plan, pool, display
        self._message, self._when_finished = message, finished
        self._one_each = one_each
        self._tries: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._queue: Queue = JobQueue([])
        self.failures = Failures()

    def work(self, queue: Queue) -> None:
        """Do the jobs of ``queue``; ``failures`` then has what failed or could not be done."""
        self._queue = queue
        while True:
            for worker in self._pool.idle():
                job = self._queue.next()
                if job is None:
                    break
                self._give(worker, job)
            if all(worker.job is None for worker in self._pool.workers) and queue.over():
                return
            heard = self._pool.hear(timeout=0.5)
            if heard is not None:
                self._answer(*heard)
            self._look_after_the_silent()
            self._display.update(self._pool.workers)

    def _give(self, worker: Worker, job: Job) -> None:
        self._tries[job.name] += 1
        self._started[job.name] = time.monotonic()
        worker.give(job, self._message(job, self._tries[job.name] == 1))

    def _answer(self, worker: Worker, message: dict[str, Any] | None) -> None:
        job = worker.job
        if message is None:
            status = self._pool.replace(worker)
            if job is not None:
                self._worker_died(job, status)
        elif message["event"] == "said":
            self._display.say(message["line"])
        elif message["event"] == "progress":
            worker.progress = (message["step"], message["total"])
        elif job is not None and message["event"] == "measured":
            why = self._queue.measured(job, message["step"], message["metrics"])
            if why is not None:
                worker.tell_to_stop(job, why)
        elif job is not None and message["event"] in ("done", "failed"):
            worker.job = worker.progress = None
            self._ended(job, message)
            if (self._one_each and job.stage not in (CHECK, FRONTIER)) or on_many_devices(job.spec):
                self._pool.replace(worker)

    def _look_after_the_silent(self) -> None:
        """A worker that was stopped or hangs: say so, and in the end give its job to another."""
        for worker in self._pool.silent(SILENCE):
            assert worker.job is not None
            pid = worker.process.pid
            if not worker.missed:
                worker.missed = True
                self._display.say(
                    f"{worker.job.name}: its worker (process {pid}) gives no sign of life; it is "
                    f"ended after {LOST:.0f} s of silence (kill -CONT {pid} wakes a stopped one)"
                )
            if worker in self._pool.silent(LOST):
                worker.kill()

    def _ended(self, job: Job, message: dict[str, Any]) -> None:
        wrong = message["wrong_input"]
        for name, why in (grouped(wrong) if job.stage == CHECK else wrong).items():
            self._failed(name, why, input_error=True)
        if job.stage == CHECK and message["wrong_input"]:
            # A slip in one config is better mended before hours go into the others.
            self.failures.skipped += self._queue.drop_all()
        elif message["event"] == "done":
            self._finished(job)
        elif not message["wrong_input"]:
            log = log_file(self._plan, job.name)
            self._failed(job.name, f"{message['message']} (log: {log})", input_error=False)

    def _worker_died(self, job: Job, status: int) -> None:
        if self._tries[job.name] < TRIES:
            self._display.say(f"{job.name}: its worker died (status {status}); trying once more")
            self._queue.again(job)
        else:
            why = f"its worker died {TRIES} times (status {status})"
            self._failed(job.name, why, input_error=False)

    def _finished(self, job: Job) -> None:
        self._when_finished(job)
        self._queue.finished(job)
        seconds = time.monotonic() - self._started[job.name]
        if job.stage != CHECK:
            self._display.finished_one(job.name, seconds)

    def _failed(self, name: str, why: str, *, input_error: bool) -> None:
        self.failures.failed[name] = why
        self.failures.input_only &= input_error
        self.failures.skipped += self._queue.drop(name, why)
        self._display.say(f"{name} FAILED: {why}")


def grouped(wrong: Mapping[str, str]) -> dict[str, str]:
    """``wrong`` with identical reasons merged: a typo in an arm affects all of its points."""
    names: dict[str, list[str]] = {}
    for name, why in wrong.items():
        names.setdefault(why, []).append(name)
    return {
        own[0] + (f" (and {len(own) - 1} more)" if len(own) > 1 else ""): why
        for why, own in names.items()
    }
