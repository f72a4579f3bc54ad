"""``alignlab run``: do what is left of an experiment, merge its tables, draw its frontier."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from alignlab.files import Made
from alignlab.pipeline import records
from alignlab.pipeline.lock import results_lock
from alignlab.pipeline.progress import say
from alignlab.pipeline.scheduler import Failures, JobQueue, Scheduler, frontier_job, with_check
from alignlab.plan import state
from alignlab.plan.experiment import Job, Plan, load_plan
from alignlab.report.table import frontier_table
from alignlab.results.run_records import (
    drop_damaged_rows,
    has_output,
    remove_leftovers,
    rows_by_run,
)
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
        Exit status: 0 for success, 2 if jobs failed and all because of their input, 1 if any
        failed for another reason.
    """
    began = time.monotonic()
    plan = load_plan(experiment, scale=scale, smoke=smoke, results=results, seeds=seeds)
    for note in plan.notes:
        say(f"note: {experiment}: {note}.")
    made = Made(plan.results)
    with results_lock(plan.results) as lock_fd:
        remove_leftovers(plan.results)
        for line in [*drop_damaged_rows(plan.results), *records.mend_configs(plan)]:
            say(line)
        todo = state.what_to_do(plan, only=only, force=force)
        for line in todo.damaged:
            say(line)
        for job in todo.unmerged:
            records.merge(plan, job)
        if todo.frontier and not plan.frontier_needs:
            say(
                f"note: {experiment}: the frontier of its objectives needs a pool of the "
                "reference's samples. Name the stage that draws one: 'frontier: {needs: [pool]}'."
            )
        say(f"{plan.results}: {_summary(plan, todo)}")
        failures = Failures()
        if todo.jobs or todo.frontier:
            words = {"--scale": scale, "--results": results, "--smoke": smoke, "--seeds": seeds}
            records.keep_command(plan.results, ["run", str(experiment), *_options(words)])
            failures = _carry_out(plan, todo, workers, lock_fd, force)
        records.write_times(plan)
        warn_about_foreign_rows(plan.results, plan.runs)
        table = plan.results / state.FIGURES[0]
        if todo.frontier and table.exists():
            say(f"\n{frontier_table(read_frontier(table))}\n")
        take_away_if_refused(made, failures)
    report_failures(failures)
    if not (todo.jobs or todo.unmerged or todo.frontier):
        say(f"Nothing to do: checked in {time.monotonic() - began:.1f} s.")
    elif not failures.failed:
        say_done(plan.results, began)
    return failures.status


def ensure_stages(plan: Plan, names: Iterable[str], *, workers: int) -> Failures:
    """Make the missing output of jobs ``names`` for a sweep that reads it.

    If two processes want the same output, the second waits and finds it done.
    """
    if not state.missing(plan, names)[0]:
        return Failures()
    made = Made(plan.results)
    with results_lock(plan.results, in_turn=True) as lock_fd:
        jobs, damaged = state.missing(plan, names)
        if not jobs:
            return Failures()
        todo = state.Todo(jobs, [], frontier=False, damaged=damaged)
        for line in damaged:
            say(line)
        say(f"{plan.results}: inputs, {_summary(plan, todo)}")
        failures = _carry_out(plan, todo, workers, lock_fd, force=False)
        take_away_if_refused(made, failures)
        return failures


def take_away_if_refused(made: Made, failures: Failures) -> None:
    """Delete a new results folder if all jobs failed because of their input and left no file.

    The jobs' logs are empty then, because the reasons were printed.

    Args:
        made: The results folder, from before it was locked.
        failures: Of the call.
    """
    refused = failures.failed and failures.input_only
    if made.is_new and refused and not has_output(made.folder):
        made.remove()


def _carry_out(plan: Plan, todo: state.Todo, size: int, lock_fd: int, force: bool) -> Failures:
    jobs = with_check(plan, todo.jobs)
    size, total = min(size, max(len(jobs), 1)), len(todo.jobs) + todo.frontier
    length = sum(job.length for job in todo.jobs) + todo.frontier
    with closing(Scheduler(plan, size, total, lock_fd, length=length, force=force)) as scheduler:
        scheduler.work(JobQueue(plan, jobs))
        failures = scheduler.failures
        undone = {*failures.skipped, *failures.failed}
        ready = not undone & set(plan.frontier_needs) and (plan.results / state.POINTS).exists()
        if todo.frontier and ready:
            scheduler.work(JobQueue(plan, [frontier_job(plan)]))
    return failures


def _summary(plan: Plan, todo: state.Todo) -> str:
    total = len({job.name for job in [*plan.asked, *todo.jobs]})
    stages = Counter(job.stage for job in todo.jobs)
    what = ", ".join(f"{stage} {count}" for stage, count in stages.items())
    return f"{len(todo.jobs)} of {total} jobs to do" + (f" ({what})" if what else "")


def say_done(results: Path, began: float) -> None:
    """Say how long a call took since ``began`` and where its results are."""
    made = "Tables and figures" if (results / state.FIGURES[-1]).exists() else "Results"
    say(f"Done in {time.monotonic() - began:.0f} s. {made}: {results}")


def report_failures(failures: Failures) -> None:
    """Name every failure, and the jobs that could not be done because of it."""
    for name, why in failures.failed.items():
        say(f"error: {name}: {why}")
    if failures.in_check:
        say("No job was started, because the settings of all jobs are checked first.")
    elif failures.skipped:
        say(f"Skipped, because they need jobs that failed: {', '.join(failures.skipped)}.")
    if failures.failed:
        say(failures.advice)


def warn_about_foreign_rows(results: Path, runs: Iterable[Job]) -> None:
    """Name the rows of the table that come from none of ``runs``; they are kept and drawn."""
    current = {job.name: job.config_sha for job in runs}
    recorded = rows_by_run(results)
    foreign = [name for name, rows in recorded.items() if current.get(name) != rows[0].config_sha]
    if foreign:
        say(
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
