"""``alignlab run``: do what is left of an experiment, merge its tables, draw its frontier."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.pipeline import messages, records
from alignlab.pipeline.lock import results_lock
from alignlab.pipeline.messages import FRONTIER, log_file
from alignlab.pipeline.progress import Display
from alignlab.pipeline.scheduler import (
    Failures,
    JobQueue,
    Scheduler,
    own_job,
    with_check,
)
from alignlab.pipeline.worker_pool import WorkerPool
from alignlab.plan import state
from alignlab.plan.experiment import Plan, load_plan
from alignlab.plan.jobs import Job
from alignlab.report.table import frontier_table
from alignlab.results.run_records import drop_damaged_rows, remove_leftovers, rows_by_run
from alignlab.results.tables import read_frontier


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
    for note in plan.notes:
        _say(f"note: {experiment}: {note}.")
    with results_lock(plan.results) as lock_fd:
        remove_leftovers(plan.results)
        for line in [*drop_damaged_rows(plan.results), *records.mend_configs(plan)]:
            _say(line)
        todo = state.what_to_do(plan, only=only, force=force)
        for line in todo.damaged:
            _say(line)
        for job in todo.unmerged:
            records.merge(plan, job)
        _say(f"{plan.results}: {_summary(plan, todo)}")
        failures = Failures()
        if todo.jobs or todo.frontier:
            words = {"--scale": scale, "--results": results, "--smoke": smoke, "--seeds": seeds}
            records.keep_command(plan.results, ["run", str(experiment), *_options(words)])
            failures = _carry_out(plan, todo, workers, lock_fd, force)
        records.write_times(plan)
        warn_about_foreign_rows(plan.results, plan.runs)
        table = plan.results / state.FIGURES[0]
        if todo.frontier and table.exists():
            _say(f"\n{frontier_table(read_frontier(table))}\n")
    tell(failures)
    if not (todo.jobs or todo.unmerged or todo.frontier):
        _say(f"Nothing to do: checked in {time.monotonic() - began:.1f} s.")
    elif not failures.failed:
        _say(f"Done in {time.monotonic() - began:.0f} s. Tables and figures: {plan.results}")
    return failures.status


def ensure_stages(plan: Plan, names: Iterable[str], *, workers: int) -> Failures:
    """See to it that the output of ``names`` is there, for somebody who only reads it.

    Two who want the same at the same time take turns, and the second finds it done.
    """
    if not state.missing(plan, names)[0]:
        return Failures()
    with results_lock(plan.results, in_turn=True) as lock_fd:
        jobs, damaged = state.missing(plan, names)
        if not jobs:
            return Failures()
        todo = state.Todo(jobs, [], frontier=False, damaged=damaged)
        for line in damaged:
            _say(line)
        _say(f"{plan.results}: inputs, {_summary(plan, todo)}")
        return _carry_out(plan, todo, workers, lock_fd, force=False)


def _carry_out(plan: Plan, todo: state.Todo, size: int, lock_fd: int, force: bool) -> Failures:
    commit = records.git_sha()
    jobs = with_check(plan, todo.jobs)
    log = log_file(plan, "workers")
    pool = WorkerPool(min(size, max(len(jobs), 1)), log, lock_fd)
    display = Display(len(todo.jobs) + todo.frontier, len(pool.workers))

    def message(job: Job, first: bool) -> dict[str, Any]:
        return messages.message(plan, job, commit, fresh=force and first)

    def finished(job: Job) -> None:
        records.record(plan, job)

    scheduler = Scheduler(plan, pool, display, message, finished)
    try:
        scheduler.work(JobQueue(jobs))
        undone = {*scheduler.failures.skipped, *scheduler.failures.failed}
        ready = not undone & set(plan.frontier_needs) and (plan.results / state.POINTS).exists()
        if todo.frontier and ready:
            own = own_job(FRONTIER, {"results": str(plan.results), "args": plan.frontier})
            scheduler.work(JobQueue([own]))
    finally:
        display.close()
        pool.dismiss()
    return scheduler.failures


def _summary(plan: Plan, todo: state.Todo) -> str:
    total = len({job.name for job in [*plan.asked, *todo.jobs]})
    stages = Counter(job.stage for job in todo.jobs)
    what = ", ".join(f"{stage} {count}" for stage, count in stages.items())
    return f"{len(todo.jobs)} of {total} jobs to do" + (f" ({what})" if what else "")


def tell(failures: Failures) -> None:
    """Name every failure and what it kept from being done."""
    for name, why in failures.failed.items():
        _say(f"error: {name}: {why}")
    if failures.skipped:
        _say(f"Skipped, because they need jobs that failed: {', '.join(failures.skipped)}.")
    if failures.failed:
        _say(failures.advice)


def warn_about_foreign_rows(results: Path, runs: Iterable[Job]) -> None:
    """Say which rows of the table none of ``runs`` made; they are kept and drawn."""
    current = {job.name: job.config_sha for job in runs}
    recorded = rows_by_run(results)
    foreign = [name for name, rows in recorded.items() if current.get(name) != rows[0].config_sha]
    if foreign:
        _say(
            f"note: points.csv also holds runs of another configuration: {', '.join(foreign)}. "
            "Delete their rows if they should not count."
        )


def _options(given: Mapping[str, Any]) -> list[str]:
    """The options that were given, as words of a command."""
    words: list[str] = []
    for name, value in given.items():
        if value is True:
            words.append(name)
        elif value not in (None, False):
            text = ",".join(map(str, value)) if name == "--seeds" else str(value)
            words += [name, text]
    return words


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
