"""``alignlab sweep``: make the inputs, run the trials, draw what they found."""

import shutil
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from alignlab.files import stamp, write_record, written_whole
from alignlab.pipeline import messages, records
from alignlab.pipeline.lock import check_folder, results_lock
from alignlab.pipeline.messages import CHECK, FRONTIER, log_file
from alignlab.pipeline.progress import Display
from alignlab.pipeline.run import ensure_stages, tell, warn_about_foreign_rows
from alignlab.pipeline.scheduler import (
    Failures,
    JobQueue,
    Scheduler,
    own_job,
)
from alignlab.pipeline.worker_pool import WorkerPool
from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job
from alignlab.results.pool import POOL_NAME, POOL_RECORD
from alignlab.results.run_records import drop_damaged_rows, remove_leftovers
from alignlab.sweep import table
from alignlab.sweep.estimate import estimate
from alignlab.sweep.outcomes import check_metrics
from alignlab.sweep.slots import Slots
from alignlab.sweep.space import ARM
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.storage import Storage, check_url, open_storage, shown
from alignlab.sweep.study import open_study
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
    check_metrics(path, sweep.metrics)
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
            _say(line)
        own = f"sqlite:///{plan.results / STUDY}"
        url = storage or sweep.storage or own
        with open_storage(url) as study_storage:
            words = ["sweep", str(path), *(["--results", str(results)] if results else [])]
            words += ["--storage", shown(storage)] if storage else []
            records.keep_command(plan.results, words)
            call = _Call(sweep, plan, study_storage, url == own, lock_fd)
            failures = call.carry_out(workers)
    tell(failures)
    if not failures.failed:
        _say(f"Done in {time.monotonic() - began:.0f} s. Tables and figures: {plan.results}")
    return failures.status


class _Call:
    """One call of the command: a pool, a study and what is left to do."""

    def __init__(
        self, sweep: Sweep, plan: Plan, storage: Storage, private: bool, lock_fd: int
    ) -> None:
        self.sweep, self.plan, self.storage = sweep, plan, storage
        self.private, self.lock_fd = private, lock_fd
        self.trials: TrialQueue | None = None

    def carry_out(self, size: int) -> Failures:
        """Check, make the inputs, run the trials, draw."""
        seeds = len(self.plan.seeds)
        pool = WorkerPool(size, log_file(self.plan, "workers"), self.lock_fd)
        display = Display(seeds * (self._trials() or 0), size)
        commit = records.git_sha()

        def message(job: Job, first: bool) -> dict[str, Any]:
            return messages.message(self.plan, job, commit, fresh=False)

        scheduler = Scheduler(
            self.plan, pool, display, message, self._finished,
            one_each=self.sweep.process_per_trial,
        )  # fmt: skip
        try:
            study, created = open_study(self.sweep, self.storage)
            _say(f"{self.plan.results}: study {study.study_name} in {self.storage.shown}")
            if CHECKED not in study.user_attrs:
                scheduler.work(JobQueue([own_job(CHECK, self._configs())]))
                if scheduler.failures.failed:
                    return scheduler.failures
                study.set_user_attr(CHECKED, True)
            made = ensure_stages(self.sweep.plan, self.sweep.needs, workers=size)
            if made.failed:
                return made
            self._copy_pool()
            self._work(scheduler, display, study, created)
            news = table.write_trials(self.plan.results / "trials.csv", self.sweep, study)
            _say(table.summary(self.sweep, study))
            warn_about_foreign_rows(self.plan.results, self._runs(study))
            self._draw(scheduler, display, news)
        finally:
            display.close()
            pool.dismiss()
        return scheduler.failures

    def _work(
        self, scheduler: Scheduler, display: Display, study: optuna.Study, created: bool
    ) -> None:
        owner = f"{socket.gethostname()}:{self.plan.results.resolve()}"
        sweep = self.sweep
        slots = Slots(
            study, self.storage, sweep.space, sweep.points, sweep.trials, owner,
            private=self.private,
        )  # fmt: skip
        started = slots.begin(created=created)
        self.trials = TrialQueue(sweep, self.plan, slots, started, self._record, display.say)
        done = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
        display.total = max(0, display.total - len(self.plan.seeds) * len(done))
        scheduler.work(self.trials)

    def _finished(self, job: Job) -> None:
        if self.trials is None or self.trials.holds(job):
            self._record(job)

    def _record(self, job: Job) -> None:
        records.record(self.plan, job)

    def _runs(self, study: optuna.Study) -> list[Job]:
        """Every run that the sweep's trials consist of, made or not."""
        points = self.sweep.points
        if points is None:
            params = [trial.params for trial in study.get_trials(deepcopy=False)]
            fixed = [optuna.trial.FixedTrial(own) for own in params if ARM in own]
            points = [self.sweep.space.suggest(trial) for trial in fixed]
        return [job for point in points for job in self.sweep.jobs(point)]

    def _configs(self) -> dict[str, Any]:
        return {name: self.plan.to_check(job) for name, job in self.sweep.probes().items()}

    def _trials(self) -> int | None:
        return self.sweep.trials if self.sweep.points is None else len(self.sweep.points)

    def _copy_pool(self) -> None:
        """The oracle's pool beside the tables: a results folder speaks for itself."""
        for name in self.plan.frontier_needs:
            made = self.sweep.plan.folder(self.plan.jobs[name]) / POOL_NAME
            if made.exists():
                with written_whole(self.plan.results / POOL_NAME) as beside:
                    shutil.copy(made, beside)
                stamps = {POOL_NAME: stamp(self.plan.results / POOL_NAME)}
                write_record(self.plan.results / POOL_RECORD, {"files": stamps})

    def _draw(self, scheduler: Scheduler, display: Display, news: bool) -> None:
        """Draw what is not drawn yet; the report has ``news`` of the trials in it, too."""
        points, pool = self.plan.results / state.POINTS, self.plan.results / POOL_NAME
        drawn = not news and state.frontier_is_drawn(self.plan)
        if points.exists() and pool.exists() and not drawn:
            spec = {"results": str(self.plan.results), "args": self.plan.frontier}
            display.total = display.finished + 1  # trials that failed are no longer waited for
            scheduler.work(JobQueue([own_job(FRONTIER, spec)]))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
