"""``alignlab sweep``: make the inputs, run the trials, draw what they found."""

import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.trial import FixedTrial, TrialState

from alignlab.files import stamp, write_record, written_whole
from alignlab.pipeline import records
from alignlab.pipeline.lock import check_folder, results_lock
from alignlab.pipeline.messages import CHECK
from alignlab.pipeline.progress import say
from alignlab.pipeline.run import ensure_stages, report_failures, warn_about_foreign_rows
from alignlab.pipeline.scheduler import Failures, JobQueue, Scheduler, frontier_job, own_job
from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job
from alignlab.results.pool import POOL_NAME, POOL_RECORD
from alignlab.results.run_records import drop_damaged_rows, remove_leftovers
from alignlab.sweep import table
from alignlab.sweep.estimate import estimate
from alignlab.sweep.outcomes import check_metrics
from alignlab.sweep.space import ARM
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.storage import Storage, check_url, open_storage, shown
from alignlab.sweep.study import Slots, open_study
from alignlab.sweep.trial_queue import TrialQueue

STUDY = "study.db"
CHECKED = "checked"


def run_sweep(
    path: Path,
    *,
    results: Path | None = None,
    workers: int = 2,
    storage: str | None = None,
    dry_run: bool = False,
) -> int:
    """Do what is left of the sweep in ``path``; see ``alignlab sweep --help``.

    Returns:
        Exit status: 0, 1 when a trial failed, 2 when all that failed did so over its input.
    """
    sweep = load_sweep(path)
    check_metrics(path, sweep.keys.metrics)
    plan = replace(
        sweep.plan,
        name=sweep.name,
        results=results or Path("results") / sweep.name,
        frontier=sweep.frontier,
        inputs=sweep.plan.results,
    )
    if storage is not None:
        check_url(storage)
    check_folder(plan.results)
    if dry_run:
        return estimate(sweep, plan, workers)
    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with results_lock(plan.results) as lock_fd:
        remove_leftovers(plan.results)
        for line in drop_damaged_rows(plan.results):
            say(line)
        own = f"sqlite:///{plan.results / STUDY}"
        url = storage or sweep.keys.storage or own
        owner = None if url == own else f"{socket.gethostname()}:{plan.results.resolve()}"
        with open_storage(url) as study_storage:
            words = ["sweep", str(path), *(["--results", str(results)] if results else [])]
            words += ["--storage", shown(storage)] if storage else []
            records.keep_command(plan.results, words)
            failures = _carry_out(sweep, plan, study_storage, owner, workers, lock_fd)
    report_failures(failures)
    if not failures.failed:
        say(f"Done in {time.monotonic() - began:.0f} s. Tables and figures: {plan.results}")
    return failures.status


def _carry_out(
    sweep: Sweep, plan: Plan, storage: Storage, owner: str | None, workers: int, lock_fd: int
) -> Failures:
    """Check, make the inputs, run the trials, draw."""
    study = open_study(sweep, storage)
    say(f"{plan.results}: study {study.study_name} in {storage.shown}")
    with Scheduler(plan, workers, 0, lock_fd, one_each=sweep.keys.process_per_trial) as scheduler:
        display, failures = scheduler.display, scheduler.failures
        if CHECKED not in study.user_attrs:
            configs = {name: plan.to_check(job) for name, job in sweep.probes().items()}
            scheduler.work(JobQueue(plan, [own_job(CHECK, configs)]))
            if failures.failed:
                return failures
            study.set_user_attr(CHECKED, True)
        made = ensure_stages(sweep.plan, sweep.needs, workers=workers)
        if made.failed:
            return made
        _copy_pool(sweep.plan, plan)
        trials = sweep.keys.trials if sweep.points is None else len(sweep.points)
        complete = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
        display.total = len(plan.seeds) * max(0, (trials or 0) - complete)
        slots = Slots(study, storage, sweep.space, sweep.points, sweep.keys.trials, owner)
        scheduler.work(TrialQueue(sweep, plan, slots, display.say))
        news = table.write_trials(plan.results / "trials.csv", sweep, study)
        say(table.summary(sweep, study))
        warn_about_foreign_rows(plan.results, _runs(sweep, study))
        has_tables = all((plan.results / name).exists() for name in (state.POINTS, POOL_NAME))
        if has_tables and (news or not state.frontier_is_drawn(plan)):
            display.total = display.finished + 1  # trials that failed are no longer waited for
            scheduler.work(JobQueue(plan, [frontier_job(plan)]))
    return failures


def _copy_pool(inputs: Plan, plan: Plan) -> None:
    """The oracle's pool beside the tables: a results folder is complete by itself."""
    for name in plan.frontier_needs:
        made = inputs.folder(plan.jobs[name]) / POOL_NAME
        if made.exists():
            with written_whole(plan.results / POOL_NAME) as beside:
                shutil.copy(made, beside)
            stamps = {POOL_NAME: stamp(plan.results / POOL_NAME)}
            write_record(plan.results / POOL_RECORD, {"files": stamps})


def _runs(sweep: Sweep, study: optuna.Study) -> list[Job]:
    """Every run that the sweep's trials consist of, made or not."""
    points = sweep.points
    if points is None:
        params = [trial.params for trial in study.get_trials(deepcopy=False)]
        points = [sweep.space.suggest(FixedTrial(own)) for own in params if ARM in own]
    return [job for point in points for job in sweep.jobs(point)]
