"""``alignlab sweep``: make the inputs, run the trials, draw their frontier."""

import shutil
import socket
import time
from contextlib import closing
from pathlib import Path

import optuna
from optuna.trial import FixedTrial, TrialState

from alignlab.files import Made, stamp, write_record, written_whole
from alignlab.pipeline import records
from alignlab.pipeline.lock import check_folder, results_lock
from alignlab.pipeline.progress import say
from alignlab.pipeline.run import (
    ensure_stages,
    report_failures,
    say_done,
    take_away_if_refused,
    warn_about_foreign_rows,
)
from alignlab.pipeline.scheduler import Failures, JobQueue, Scheduler, frontier_job, own_job
from alignlab.plan import state
from alignlab.plan.experiment import CHECK, Job
from alignlab.plan.space import ARM
from alignlab.results.pool import POOL_NAME, POOL_RECORD
from alignlab.results.run_records import STUDY, drop_damaged_rows, remove_leftovers
from alignlab.sweep import table
from alignlab.sweep.estimate import estimate
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.storage import check_url, open_storage, shown
from alignlab.sweep.study import Slots, is_by_hand, open_study
from alignlab.sweep.trial_queue import TrialQueue

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
        Exit status: 0 for success, 2 if trials failed and all because of their input, 1 if any
        failed for another reason.
    """
    sweep = load_sweep(path, results)
    plan, own = sweep.plan, f"sqlite:///{sweep.plan.results / STUDY}"
    if storage is not None:
        check_url(storage)
    if dry_run:
        check_folder(plan.results)
        return estimate(sweep, workers)
    began = time.monotonic()
    made = Made(plan.results)
    with results_lock(plan.results) as lock_fd:
        remove_leftovers(plan.results)
        for line in drop_damaged_rows(plan.results):
            say(line)
        url = storage or sweep.keys.storage or own
        owner = None if url == own else f"{socket.gethostname()}:{plan.results.resolve()}"
        place = shown(url)
        with open_storage(url) as study_storage:
            words = ["sweep", str(path), *(["--results", str(results)] if results else [])]
            words += ["--storage", shown(storage)] if storage else []
            records.keep_command(plan.results, words)
            study = open_study(sweep, study_storage)
            say(f"{plan.results}: study {study.study_name} in {place}")
            slots = Slots(sweep, study, study_storage, owner)
            failures = _carry_out(sweep, study, slots, workers, lock_fd)
        take_away_if_refused(made, failures)
    report_failures(failures)
    if not failures.failed:
        say_done(plan.results, began)
    return failures.status


def _carry_out(
    sweep: Sweep, study: optuna.Study, slots: Slots, workers: int, lock_fd: int
) -> Failures:
    """Check, make the inputs, run the trials, draw."""
    plan, needs = sweep.plan, sweep.needs
    checks = [] if CHECKED in study.user_attrs else [own_job(CHECK, sweep.to_check())]
    check = JobQueue(plan, checks)
    one_each = sweep.keys.process_per_trial
    with closing(Scheduler(plan, workers, 0, lock_fd, one_each=one_each)) as scheduler:
        display, failures = scheduler.display, scheduler.failures
        scheduler.work(check)
        if failures.failed:
            return failures
        study.set_user_attr(CHECKED, True)
        made = ensure_stages(sweep.inputs, needs, workers=workers)
        if made.failed:
            return made
        _copy_pool(sweep)
        trials = sweep.keys.trials if sweep.points is None else len(sweep.points)
        found = study.get_trials(deepcopy=False)
        added = sum(is_by_hand(t) and t.state is TrialState.WAITING for t in found)
        complete = sum(not is_by_hand(t) and t.state is TrialState.COMPLETE for t in found)
        display.total = len(plan.seeds) * (max(0, (trials or 0) - complete) + added)
        scheduler.work(TrialQueue(sweep, slots, display.say))
        news = table.write_trials(plan.results / "trials.csv", sweep, study)
        say(table.summary(sweep, study))
        warn_about_foreign_rows(plan.results, _runs(sweep, study))
        has_tables = all((plan.results / name).exists() for name in (state.POINTS, POOL_NAME))
        if has_tables and (news or not state.frontier_is_drawn(plan)):
            display.total = display.finished + 1  # trials that failed are no longer waited for
            scheduler.work(JobQueue(plan, [frontier_job(plan)]))
    return failures


def _copy_pool(sweep: Sweep) -> None:
    """Copy the oracle's pool beside the tables, so that the results folder is complete."""
    results = sweep.plan.results
    for name in sweep.plan.frontier_needs:
        made = sweep.inputs.folder(sweep.inputs.jobs[name]) / POOL_NAME
        if made.exists():
            with written_whole(results / POOL_NAME) as beside:
                shutil.copy(made, beside)
            write_record(results / POOL_RECORD, {"files": {POOL_NAME: stamp(results / POOL_NAME)}})


def _runs(sweep: Sweep, study: optuna.Study) -> list[Job]:
    """All runs of the sweep's trials, finished or not."""
    designed = sweep.points is not None
    found = study.get_trials(deepcopy=False)
    params = [trial.params for trial in found if not designed or is_by_hand(trial)]
    tried = [sweep.space.suggest(FixedTrial(own)) for own in params if ARM in own]
    points = [*(sweep.points or []), *tried]
    return [job for point in points for job in sweep.jobs(point)]
