"""``alignlab run``: do what is left of an experiment, merge its tables, draw its frontier."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignlab.evaluation.tables import Point, merge_points, read_frontier
from alignlab.pipeline import records, state
from alignlab.pipeline.jobs import DONE
from alignlab.pipeline.lock import results_lock
from alignlab.pipeline.plan import Job, Plan, load_plan
from alignlab.pipeline.progress import Display
from alignlab.pipeline.workers import Crew, Worker
from alignlab.report.table import frontier_table

TRIES = 2  # a killed worker's job is given to another worker once

DRAW = Job("frontier", "all", None, {}, None, {}, {}, frozenset(), "")


def run_experiment(
    experiment: Path,
    *,
    scale: str | None = None,
    results: Path | None = None,
    seeds: Sequence[int] | None = None,
    only: str | None = None,
    force: bool = False,
    smoke: bool = False,
    workers: int = 2,
) -> int:
    """Do what is left to do; see ``alignlab run --help``.

    Returns:
        Exit status: 0, 1 when a job failed, 2 when jobs failed and all over their input.
    """
    began = time.monotonic()
    plan = load_plan(experiment, scale=scale, smoke=smoke, results=results, seeds=seeds)
    with results_lock(plan.results) as lock_fd:
        records.remove_leftovers(plan.results)
        todo = state.what_to_do(plan, only=only, force=force)
        for job in todo.unmerged:
            _merge(plan, job)
        _say(f"{plan.results}: {_summary(plan, todo)}")
        failures = Failures()
        if todo.jobs or todo.frontier:
            _carry_out(plan, todo, failures, workers, lock_fd, force)
        _tell_of_strangers(plan)
        table = plan.results / state.FIGURES[0]
        if todo.frontier and table.exists():
            _say("\n" + frontier_table(read_frontier(table)) + "\n")
    failures.tell()
    if not (todo.jobs or todo.unmerged or todo.frontier):
        _say(f"Nothing to do: checked in {time.monotonic() - began:.1f} s.")
    elif not failures.failed:
        _say(f"Done in {time.monotonic() - began:.0f} s. Tables and figures: {plan.results}")
    return failures.status


@dataclass
class Failures:
    """What went wrong, and what could not be done because of it."""

    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    input_only: bool = True

    @property
    def status(self) -> int:
        """Exit status of the whole run."""
        return (2 if self.input_only else 1) if self.failed else 0

    def tell(self) -> None:
        """Name every failure and what it kept from being done."""
        for name, message in self.failed.items():
            _say(f"error: {name}: {message}")
        if self.skipped:
            _say(f"Not done, for want of these: {', '.join(self.skipped)}.")
        if self.failed:
            _say("Call again to continue: what is finished stays finished.")


class Schedule:
    """Which job may start next.

    Args:
        jobs: To do, in order; a job waits for those of its needs that are among them.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = {job.name: job for job in jobs}
        self._unfinished = set(self.waiting)

    def next(self) -> Job | None:
        """Take the first job whose needs are all there."""
        for job in self.waiting.values():
            if not self._needs(job) & self._unfinished:
                return self.waiting.pop(job.name)
        return None

    def finished(self, job: Job) -> None:
        """``job`` left its output."""
        self._unfinished.discard(job.name)

    def drop_after(self, job: Job) -> list[str]:
        """Take out everything that waits for ``job``, which failed, and name it."""
        lost, names = {job.name}, []
        for name, waiting in list(self.waiting.items()):
            if self._needs(waiting) & lost:
                lost.add(name)
                names.append(name)
                del self.waiting[name]
        return names

    @staticmethod
    def _needs(job: Job) -> set[str]:
        return {name for names in job.needs.values() for name in names}


def _carry_out(
    plan: Plan, todo: state.Todo, failures: Failures, size: int, lock_fd: int, force: bool
) -> None:
    crew = Crew(
        min(size, max(len(todo.jobs), 1)), plan.results / "work" / "logs" / "workers.log", lock_fd
    )
    display = Display(len(todo.jobs) + todo.frontier, len(crew.workers))
    try:
        _Foreman(plan, crew, display, failures, force).work(todo.jobs)
        drawable = not set(failures.skipped + list(failures.failed)) & set(plan.frontier_needs)
        if todo.frontier and drawable and (plan.results / state.POINTS).exists():
            _Foreman(plan, crew, display, failures, force).work([DRAW])
    finally:
        display.close()
        crew.dismiss()


class _Foreman:
    """Hands jobs to workers until none is left."""

    def __init__(
        self, plan: Plan, crew: Crew, display: Display, failures: Failures, force: bool
    ) -> None:
        self.plan, self.crew, self.display, self.failures = plan, crew, display, failures
        self.force = force
        self.git_sha = _git_sha()
        self.tries: Counter[str] = Counter()
        self.started: dict[str, float] = {}

    def work(self, jobs: Sequence[Job]) -> None:
        self.schedule = Schedule(jobs)
        while True:
            for worker in self.crew.idle():
                job = self.schedule.next()
                if job is None:
                    break
                self._give(worker, job)
            if all(worker.job is None for worker in self.crew.workers):
                return
            heard = self.crew.hear(timeout=0.5)
            if heard is not None:
                self._answer(*heard)
            self.display.update(self.crew.workers)

    def _give(self, worker: Worker, job: Job) -> None:
        self.tries[job.name] += 1
        self.started[job.name] = time.monotonic()
        fresh = self.force and self.tries[job.name] == 1
        worker.give(job, job_message(self.plan, job, self.git_sha, fresh))

    def _answer(self, worker: Worker, message: dict[str, Any] | None) -> None:
        job = worker.job
        if message is None:
            status = self.crew.replace(worker)
            if job is not None:
                self._worker_died(job, status)
        elif message["event"] == "progress":
            worker.progress = (message["step"], message["total"])
        elif message["event"] == "done":
            assert job is not None
            worker.job = None
            self._finished(job)
        elif message["event"] == "failed":
            assert job is not None
            worker.job = None
            self._failed(job, message["message"], message["input_error"])

    def _worker_died(self, job: Job, status: int) -> None:
        if self.tries[job.name] < TRIES:
            self.display.say(f"{job.name}: its worker died (status {status}); trying once more")
            self.schedule.waiting = {job.name: job, **self.schedule.waiting}
        else:
            self._failed(job, f"its worker died {TRIES} times (status {status})", False)

    def _finished(self, job: Job) -> None:
        self.schedule.finished(job)
        self.display.one_more()
        seconds = time.monotonic() - self.started[job.name]
        if job is DRAW:
            record = {"inputs_sha": state.frontier_sha(self.plan)}
            records.write_json(state.frontier_record(self.plan), record)
            return
        if job.objective is not None:
            _merge(self.plan, job)
        _write_config(self.plan, job)
        done, total = self.display.finished, self.display.total
        self.display.say(f"[{done}/{total}] {job.name} done in {seconds:.0f} s")

    def _failed(self, job: Job, message: str, input_error: bool) -> None:
        log = log_file(self.plan, job)
        hint = "" if input_error else f" (log: {log})"
        self.failures.failed[job.name] = message + hint
        self.failures.input_only &= input_error
        self.failures.skipped += self.schedule.drop_after(job)
        self.display.say(f"{job.name} FAILED: {message}")


def log_file(plan: Plan, job: Job) -> Path:
    """Where the job's prints and traceback go."""
    return plan.results / "work" / "logs" / f"{job.name}.log"


def job_message(plan: Plan, job: Job, git_sha: str, fresh: bool) -> dict[str, Any]:
    """Everything a worker needs to know about a job."""
    if job is DRAW:
        return {
            "draw": str(plan.results),
            "args": plan.frontier,
            "log": str(log_file(plan, job)),
        }
    return {
        "name": job.name,
        "folder": str(plan.folder(job)),
        "config_sha": job.config_sha,
        "spec": plan.resolved(job),
        "fresh": fresh,
        "log": str(log_file(plan, job)),
        "run": None
        if job.objective is None
        else {
            "experiment": plan.name,
            "objective": job.objective,
            "run_id": job.name,
            "seed": 0 if job.seed is None else job.seed,
            "hparams": job.hparams,
            "config_sha": job.config_sha,
            "git_sha": git_sha,
            "prompt_table": str(state.prompt_table(plan, job)),
        },
    }


def _merge(plan: Plan, job: Job) -> None:
    done = records.read_json(plan.folder(job) / DONE)
    assert done is not None
    merge_points(plan.results / state.POINTS, [Point(**row) for row in done["points"]])


def _write_config(plan: Plan, job: Job) -> None:
    header = f"# {job.name}, config_sha {job.config_sha}\n"
    spec = plan.resolved(job)
    text = yaml.safe_dump(spec.get("config", spec), sort_keys=False)
    records.write_text(plan.results / "configs" / f"{job.name}.yaml", header + text)


def _git_sha() -> str:
    here = Path(__file__).parent.parent
    try:
        head = _git(here, "rev-parse", "HEAD").strip()
        changed = bool(_git(here, "status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-changed" if changed else head


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def _summary(plan: Plan, todo: state.Todo) -> str:
    total = len({job.name for job in [*plan.asked, *todo.jobs]})
    stages = Counter(job.stage for job in todo.jobs)
    what = ", ".join(f"{stage} {count}" for stage, count in stages.items())
    return f"{len(todo.jobs)} of {total} jobs to do" + (f" ({what})" if what else "")


def _tell_of_strangers(plan: Plan) -> None:
    """Say which rows of the table this configuration did not make; they are kept and drawn."""
    current = {job.name: job.config_sha for job in plan.runs}
    recorded = records.recorded_runs(plan.results / state.POINTS)
    strangers = [name for name, sha in recorded.items() if current.get(name) != sha]
    if strangers:
        _say(
            f"note: points.csv also holds runs of another configuration: {', '.join(strangers)}. "
            "Delete their rows if they should not count."
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
