"""The scheduler: gives jobs to worker processes, handles their reports and failures.

The loop is alignlab's own. Workers stay warm, because their imports cost seconds and a job often
less; a crash costs one job; what a job reports can stop it.
"""

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from alignlab.pipeline import records
from alignlab.pipeline.progress import Display
from alignlab.pipeline.worker_pool import Worker, WorkerPool
from alignlab.plan.experiment import CHECK, FRONTIER, Job, Plan
from alignlab.results.commits import present_commit
from alignlab.results.progress import progress_file, write_progress
from alignlab.results.run_folder import STAGES
from alignlab.results.run_records import table_of

TRIES = 2  # a killed worker's job is given to another worker once
PROGRESS_EVERY = 5.0  # seconds between two notes of the progress
SILENCE, LOST = 30.0, 600.0  # seconds without a sign of life: until a warning, until it is killed
NOT_FINITE = "FloatingPointError"  # the exception that marks a diverged run


@dataclass
class Failures:
    """The jobs that failed, and those skipped because of them."""

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    input_only: bool = True
    in_check: bool = False  # whether the check of all settings failed, before any job

    @property
    def advice(self) -> str:
        """What to do: retrying helps neither bad input nor a diverged run."""
        if self.input_only:
            return "Finished jobs are kept: correct this and call again."
        if all(why.startswith(NOT_FINITE) for why in self.failed.values()):
            return "Finished jobs are kept; these would diverge again."
        return "Call again to continue: finished jobs are kept."

    @property
    def status(self) -> int:
        """Exit status of the whole run."""
        return (2 if self.input_only else 1) if self.failed else 0


class Queue(Protocol):
    """Where the scheduler takes jobs from: a ``JobQueue``, or a sweep's ``TrialQueue``."""

    def keep_alive(self) -> None:
        """Called at least once a second, whatever the workers are doing."""

    def next(self) -> Job | None:
        """Take a job that may start now, if there is one."""

    def put_back(self, job: Job) -> None:
        """Take ``job`` back, whose worker died."""

    def finished(self, job: Job) -> None:
        """Record the output of the finished ``job``."""

    def failed(self, job: Job, why: str) -> None:
        """Record that ``job`` failed, so that jobs that wait for it are skipped."""

    def evaluated(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """Handle an evaluation of ``job`` at ``step``; returns why it should stop, if it should."""

    def exhausted(self) -> bool:
        """Whether no job can come any more, once no worker has one."""

    def skipped(self) -> list[str]:
        """Names of the jobs that could not be done because others failed."""

    def diverged(self) -> dict[str, str]:
        """Runs that ended and still count as diverged, each with the reason."""


class JobQueue:
    """The jobs of a plan, each after those it needs.

    Args:
        plan: Whose tables the jobs' output goes into.
        jobs: To do; a job waits for those of its needs that are among them. Of the jobs that may
            start, other stages come before frontier runs, because other jobs may wait for them.
            Only the frontier waits for a run, and many short runs at the end leave no worker idle.
            Tuning counts as a run, so that one objective is finished before the next begins.
    """

    def __init__(self, plan: Plan, jobs: Sequence[Job]) -> None:
        self._plan = plan
        self._waiting = sorted(jobs, key=lambda job: job.objective is not None or job.tunes)
        self._undone = {job.name for job in jobs}

    def keep_alive(self) -> None:
        """Do nothing: no other process may take these jobs."""

    def next(self) -> Job | None:
        """Take the first job whose needs are done."""
        for job in list(self._waiting):
            if self._undone.isdisjoint(itertools.chain(*job.needs.values())):
                self._waiting.remove(job)
                if not self._plan.needless(job):
                    return job
                self._undone.remove(job.name)
        return None

    def put_back(self, job: Job) -> None:
        """Put ``job`` before all others."""
        self._waiting.insert(0, job)

    def finished(self, job: Job) -> None:
        """Record ``job``; what waited for it may start."""
        records.record(self._plan, job)
        self._undone.remove(job.name)

    def failed(self, job: Job, why: str) -> None:
        """Do nothing: jobs that wait for ``job`` never become ready."""

    def evaluated(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """Return ``None``: a pipeline's runs continue to their last step."""

    def exhausted(self) -> bool:
        """Return True: only a running job makes others ready."""
        return True

    def skipped(self) -> list[str]:
        """Names of the jobs that are still waiting."""
        return [job.name for job in self._waiting]

    def diverged(self) -> dict[str, str]:
        """Return none: a run of a pipeline has no bound on KL."""
        return {}


def on_many_devices(spec: dict[str, Any]) -> bool:
    """Whether a job trains, or may train, in a process group; DDP and FSDP2 always do."""
    trainer = _trainer(spec)
    several = trainer.get("devices", 1) not in (1, "1") or trainer.get("num_nodes", 1) != 1
    return several or trainer.get("strategy", "auto") != "auto"


def processes_of(spec: dict[str, Any], most: int) -> int:
    """How many processes a job has on this machine, at most ``most``: one for each device."""
    devices = _trainer(spec).get("devices", 1)
    if isinstance(devices, list):
        return min(len(devices), most)
    text = str(devices)
    return min(int(text), most) if text.isdecimal() else most  # auto: all there are


def _trainer(spec: dict[str, Any]) -> dict[str, Any]:
    return (spec.get("config") or {}).get("trainer") or {}


def own_job(name: str, spec: dict[str, Any]) -> Job:
    """A job of the pipeline itself: checking the configs, or drawing the frontier."""
    return Job(name, "all", None, {}, None, {name: spec}, {}, "")


def frontier_job(plan: Plan) -> Job:
    """The job that draws the frontier of the plan's results folder."""
    return own_job(FRONTIER, {"results": str(plan.results), "args": plan.frontier})


def with_check(plan: Plan, jobs: Sequence[Job]) -> list[Job]:
    """Put a check of the configs before ``jobs``; seeds share a config, so one per grid point.

    Runs whose settings are still to be found are checked with the trials.
    """
    known = [job for job in jobs if job.budget is None or plan.choices(job)]
    kinds = {(job.stage, str(plan.hparams(job)), job.tunes): job for job in reversed(known)}
    specs = {job.name: plan.to_check(job) for job in reversed(kinds.values())}
    behind = [replace(job, needs={**job.needs, CHECK: (CHECK,)}) for job in jobs]
    return [own_job(CHECK, specs), *behind] if jobs else []


def log_file(plan: Plan, name: str) -> Path:
    """Where the prints and the traceback of a job go."""
    return plan.results / STAGES / "logs" / f"{name}.log"


def message(plan: Plan, job: Job, commit: str, *, fresh: bool) -> dict[str, Any]:
    """The message that gives a job to a worker.

    Args:
        plan: Whose job it is.
        job: A stage's, or one of the pipeline's own.
        commit: Of the code, for the tables.
        fresh: Start over, whatever its folder holds.
    """
    common: dict[str, Any] = {"name": job.name, "log": str(log_file(plan, job.name))}
    if job.stage in (CHECK, FRONTIER):
        return common | {"spec": job.spec}
    run = None
    if job.objective is not None:
        run = {
            "experiment": plan.name,
            "objective": job.objective,
            "run_id": job.name,
            "seed": 0 if job.seed is None else job.seed,
            "hparams": plan.hparams(job),
            "config_sha": job.config_sha,
            "git_sha": commit,
            "prompt_table": str(table_of(plan.results, job.name)),
        }
    return common | {
        "folder": str(plan.folder(job)),
        "config_sha": job.config_sha,
        "git_sha": commit,
        "spec": plan.resolved(job),
        "record": str(plan.record(job)),
        "fresh": fresh,
        "run": run,
    }


class Scheduler:
    """Gives the jobs of queues to workers, until it is closed.

    Args:
        plan: Whose jobs they are.
        workers: How many at a time.
        total: Jobs to show the progress of.
        length: Training runs of these jobs; see ``Display``.
        lock_fd: File descriptor of the results folder's lock, for the workers.
        force: Jobs start over, whatever their folders hold.
        one_each: Replace each worker after one stage's job. After a run on several devices this
            always happens, because a process can be a rank of one group only.
    """

    def __init__(
        self,
        plan: Plan,
        workers: int,
        total: int,
        lock_fd: int,
        *,
        length: int | None = None,
        force: bool = False,
        one_each: bool = False,
    ) -> None:
        self._plan, self._force, self._one_each = plan, force, one_each
        self._pool = WorkerPool(workers, log_file(plan, "workers"), lock_fd)
        self.display = Display(total, workers, length)
        self._commit = present_commit()
        self._tries: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._wrote = time.monotonic()
        self._queue: Queue = JobQueue(plan, [])
        self.failures = Failures()

    def close(self) -> None:
        """Remove the bars and stop all workers."""
        self.display.close()
        self._pool.close()
        progress_file(self._plan.results).unlink(missing_ok=True)

    def work(self, queue: Queue) -> None:
        """Do the jobs of ``queue``; ``failures`` holds what failed or could not be done."""
        self._queue = queue
        held: Job | None = None  # waits until as many workers are idle as it has processes
        while True:
            queue.keep_alive()
            for worker in self._pool.idle():
                job = held or queue.next()
                held = None if job is None or self._has_room(job) else job
                if job is None or held is not None:
                    break
                self._start(worker, job)
            if not any(worker.job for worker in self._pool.workers) and queue.exhausted():
                break
            received = self._pool.receive(timeout=0.5)
            if received is not None:
                self._answer(*received)
            self._check_for_silence()
            self.display.update(self._pool.workers)
            self._write_progress()
        self.failures.skipped += [n for n in queue.skipped() if n not in self.failures.failed]

    def _write_progress(self) -> None:
        """Write how far the call is, now and then, for a live report."""
        if time.monotonic() - self._wrote < PROGRESS_EVERY:
            return
        self._wrote = time.monotonic()
        progress = self.display.progress(self._pool.workers)
        bad = self.failures.failed | self._queue.diverged()
        with contextlib.suppress(OSError):  # a full disk ends runs with a message of their own
            write_progress(self._plan.results, replace(progress, failed=bad))

    def _has_room(self, job: Job) -> bool:
        """Whether the workers' jobs and ``job`` have no more processes than there are workers."""
        most = len(self._pool.workers)
        at_work = [worker.job for worker in self._pool.workers if worker.job is not None]
        return sum(processes_of(each.spec, most) for each in (*at_work, job)) <= most

    def _start(self, worker: Worker, job: Job) -> None:
        self._tries[job.name] += 1
        self._started[job.name] = time.monotonic()
        fresh = self._force and self._tries[job.name] == 1
        worker.start(job, message(self._plan, job, self._commit, fresh=fresh))

    def _answer(self, worker: Worker, report: dict[str, Any] | None) -> None:
        job = worker.job
        if report is None:
            status = self._pool.replace(worker)
            if job is not None:
                self._worker_died(job, status)
        elif report["event"] == "said":
            self.display.say(report["line"])
        elif report["event"] == "progress":
            worker.progress = (report["step"], report["total"])
        elif job is not None and report["event"] == "evaluated":
            why = self._queue.evaluated(job, report["step"], report["metrics"])
            if why is not None:
                worker.send({"stop": job.name, "why": why})
        elif job is not None and report["event"] in ("done", "failed"):
            worker.job = worker.progress = None
            self._ended(job, report)
            if (self._one_each and job.stage not in (CHECK, FRONTIER)) or on_many_devices(job.spec):
                self._pool.replace(worker)

    def _check_for_silence(self) -> None:
        """Warn about a silent worker; after a longer silence, kill it and repeat its job."""
        for worker in self._pool.silent(SILENCE):
            if not worker.warned_of and worker.job is not None:
                worker.warned_of, pid = True, worker.process.pid
                self.display.say(
                    f"{worker.job.name}: its worker (process {pid}) gives no sign of life; it is "
                    f"killed after {LOST:.0f} s of silence (kill -CONT {pid} resumes a paused one)"
                )
        for worker in self._pool.silent(LOST):
            worker.process.kill()

    def _ended(self, job: Job, report: dict[str, Any]) -> None:
        wrong = report["wrong_input"]
        if job.stage == CHECK and (wrong or report["event"] == "failed"):
            self.failures.in_check = True
        if wrong:
            for name, why in grouped(wrong).items():
                self._failed(name, why, input_error=True)
            self._queue.failed(job, "; ".join(wrong.values()))
        elif report["event"] == "failed":
            self._job_failed(job, f"{report['message']} (log: {log_file(self._plan, job.name)})")
        else:
            self._queue.finished(job)
            if job.stage != CHECK:
                self.display.finished_one(job, time.monotonic() - self._started[job.name])

    def _worker_died(self, job: Job, status: int) -> None:
        if self._tries[job.name] < TRIES:
            self.display.say(f"{job.name}: its worker died (status {status}); trying once more")
            self._queue.put_back(job)
        else:
            self._job_failed(job, f"its worker died {TRIES} times (status {status})")

    def _job_failed(self, job: Job, why: str) -> None:
        self._failed(job.name, why, input_error=False)
        self._queue.failed(job, why)

    def _failed(self, name: str, why: str, *, input_error: bool) -> None:
        self.failures.failed[name] = why
        self.failures.input_only &= input_error
        self.display.say(f"{name} FAILED: {why}")


def grouped(wrong: Mapping[str, str]) -> dict[str, str]:
    """``wrong`` with identical reasons merged: a typo in an arm affects all of its points."""
    names: dict[str, list[str]] = {}
    for name, why in wrong.items():
        names.setdefault(why, []).append(name)
    return {
        own[0] + (f" (and {len(own) - 1} more)" if len(own) > 1 else ""): why
        for why, own in names.items()
    }
