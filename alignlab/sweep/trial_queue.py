"""Trials as jobs: choose the next run, record finished runs, stop pruned or dominated ones."""

import math
import time
import warnings
from collections.abc import Callable

from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.files import DONE, read_record
from alignlab.pipeline import records
from alignlab.pipeline.scheduler import NOT_FINITE
from alignlab.plan import state
from alignlab.plan.experiment import Job
from alignlab.results.run_records import record_of, rows_by_run
from alignlab.results.tables import Point
from alignlab.sweep.spec import PROBED, Sweep
from alignlab.sweep.study import DIVERGED, ERROR, STOPPED, RunningTrial, Slots

# Beginnings of the reasons for which a run is stopped.
PRUNED, DOMINATED = "pruned", "other runs had more reward at less KL"


class TrialQueue:
    """Where the scheduler takes a sweep's jobs from.

    Args:
        sweep: The sweep.
        slots: The study's trials.
        say: Shows a line.
        clock: Seconds, for the time budget.
    """

    def __init__(
        self,
        sweep: Sweep,
        slots: Slots,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweep, self._plan, self._slots, self._say = sweep, sweep.plan, slots, say
        self._clock, self._began = clock, clock()
        self._lost_workers: list[Job] = []
        self._of_job: dict[str, RunningTrial] = {}
        self._running: list[RunningTrial] = []
        self._skipped: list[str] = []
        self._diverged: dict[str, str] = {}
        self._rows = rows_by_run(self._plan.results)
        self._beaten: dict[str, int] = {}  # run -> evaluations in a row that were dominated
        self._said_wait = False
        for running in slots.begin():
            self._begin(running)

    def keep_alive(self) -> None:
        """Tell the other processes of the study that this one is alive."""
        self._slots.keep_alive()

    def next(self) -> Job | None:
        """A run of a running trial, or of a new one."""
        if self._lost_workers:
            return self._lost_workers.pop()
        while True:
            job = self._waiting_job()
            if job is not None or self._late():
                return job
            running = self._slots.next()
            if running is None:
                return None
            self._begin(running)

    def put_back(self, job: Job) -> None:
        """Take ``job`` back, whose worker died."""
        self._lost_workers.append(job)

    def finished(self, job: Job) -> None:
        """Record ``job``; its trial is complete when all of its runs are finished."""
        running = self._of_job.pop(job.name, None)
        if running is None or self._slots.holds(running):  # else another folder owns it
            self._record(job)
        if running is not None:
            running.at_work.discard(job.name)
            self._add_outcome(running, job)
            self._close_if_done(running)

    def failed(self, job: Job, why: str) -> None:
        """Fail the trial of the run that failed."""
        running = self._of_job.get(job.name)
        if running is not None:
            self._skipped += [other.name for other in running.waiting]
            kind = DIVERGED if why.startswith(NOT_FINITE) else ERROR
            self._forget(running)
            self._slots.tell(running.trial, TrialState.FAIL, {kind: f"{job.name}: {why}"})

    def evaluated(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """Report to the pruner, and look for finished runs with more reward at less KL."""
        running = self._of_job.get(job.name)
        if running is None:
            return None
        if self._sweep.keys.pruner is not None and not running.measures:
            (metric,) = self._sweep.keys.metrics
            if metric in metrics:
                with warnings.catch_warnings():
                    # A continued run reports its last evaluation once more.
                    warnings.filterwarnings("ignore", message="The reported value is ignored")
                    running.trial.report(metrics[metric], step)
                if running.trial.should_prune():
                    running.pruned = True
                    return f"{PRUNED} at step {step}"
        if self._is_dominated(job, metrics):
            return f"{DOMINATED}, up to step {step}"
        return None

    def exhausted(self) -> bool:
        """Whether no job can come any more; dead trials of other folders may be tried here."""
        if self._running or self._lost_workers or self._late():
            return not (self._running or self._lost_workers)
        others = self._slots.running_elsewhere()
        if others and not self._said_wait:
            self._said_wait = True
            self._say(f"{others} trials run elsewhere; waiting, to take over any that die")
        return self._slots.is_all_done()

    def skipped(self) -> list[str]:
        """The other runs of trials that failed."""
        return self._skipped

    def diverged(self) -> dict[str, str]:
        """Runs of this call beyond the bound on KL."""
        return self._diverged

    def _late(self) -> bool:
        minutes = self._sweep.keys.minutes
        return minutes is not None and self._clock() - self._began > 60 * minutes

    def _begin(self, running: RunningTrial) -> None:
        self._running.append(running)
        for job in self._sweep.jobs(running.point):
            _, stopped = self._outcome(job)
            # The sweep no longer has the rule that stopped it.
            if (stopped.startswith(PRUNED) and self._sweep.keys.pruner is None) or (
                stopped.startswith(DOMINATED) and self._sweep.stop.dominated is None
            ):
                (self._plan.folder(job) / DONE).unlink(missing_ok=True)  # a worker starts it again
            elif self._is_made(job):
                self._add_outcome(running, job)
                continue
            running.waiting.append(job)
            self._of_job[job.name] = running
        self._close_if_done(running)

    def _is_made(self, job: Job) -> bool:
        """Whether a run is finished: its rows and metrics are recorded, or can be now."""
        done = state.is_done(self._plan, job)
        if not state.is_up_to_date(self._plan, job, self._rows, done=done):
            return False
        if done and not state.is_recorded(self._plan, job, self._rows):
            self._record(job)  # the parent was killed just before it recorded the run
        return done or {*self._sweep.keys.metrics} <= self._outcome(job)[0].keys()

    def _record(self, job: Job) -> None:
        records.record(self._plan, job)
        self._rows = rows_by_run(self._plan.results)

    def _outcome(self, job: Job) -> tuple[dict[str, float], str]:
        """The last metrics of a run, and why it ended early (empty if it did not).

        They come from its folder or, if that is gone, from the records beside the tables.
        """
        kept = self._plan.folder(job) / DONE, record_of(self._plan.results, job.name)
        found = (record for record in map(read_record, kept) if record is not None)
        done = next((each for each in found if each["config_sha"] == job.config_sha), {})
        measures: dict[str, float] = dict(done.get("metrics") or {})
        own = [Point(**row) for row in done.get("points", [])]
        if rows := own or self._rows.get(job.name):
            last = max(rows, key=lambda row: row.step)
            values = {name: getattr(last, name) for name in PROBED}
            measures |= {name: float(value) for name, value in values.items() if value is not None}
        return measures, done.get("stopped") or ""

    def _waiting_job(self) -> Job | None:
        for running in self._running:
            # A pruner judges by the first seed; other seeds run only in trials that it keeps.
            one_by_one = self._sweep.keys.pruner is not None and running.at_work
            if running.waiting and not one_by_one:
                job = running.waiting.pop(0)
                running.at_work.add(job.name)
                return job
        return None

    def _add_outcome(self, running: RunningTrial, job: Job) -> None:
        (measures, stopped), limit = self._outcome(job), self._sweep.stop.kl
        running.measures.append(measures)
        # A pruned run stays pruned, also in a later study and after the parent was killed.
        running.pruned |= stopped.startswith(PRUNED)
        if limit is not None and measures.get("kl", 0.0) > limit:
            why = f"KL {measures['kl']:.4g} > {limit:g}"
            running.note(DIVERGED, job, stopped or why)
            self._diverged[job.name] = stopped or why
        elif stopped:
            running.note(STOPPED, job, stopped)

    def _close_if_done(self, running: RunningTrial) -> None:
        if running.pruned:
            running.waiting.clear()
        if running.waiting or running.at_work:
            return
        self._forget(running)
        if running.pruned:
            self._slots.tell(running.trial, TrialState.PRUNED, running.notes)
            return
        values = [self._mean(running, name) for name in self._sweep.keys.metrics]
        if all(math.isfinite(value) for value in values):
            self._slots.tell(running.trial, TrialState.COMPLETE, running.notes, values)
        else:
            found = dict(zip(self._sweep.keys.metrics, values, strict=True))
            notes = {DIVERGED: f"not finite: {found}"}
            self._slots.tell(running.trial, TrialState.FAIL, notes)

    def _forget(self, running: RunningTrial) -> None:
        self._running.remove(running)
        self._of_job = {name: r for name, r in self._of_job.items() if r is not running}
        self._lost_workers = [job for job in self._lost_workers if job.name in self._of_job]

    def _mean(self, running: RunningTrial, metric: str) -> float:
        found = [own[metric] for own in running.measures if metric in own]
        if len(found) < len(running.measures):
            logged = sorted(set().union(*running.measures))
            raise ConfigError(
                f"metric {metric!r} was never logged by arm {running.point.arm!r}; logged: "
                f"{', '.join(logged) or 'nothing'}. Name one of these in the sweep's metrics: "
                "finished runs are kept."
            )
        return sum(found) / len(found)

    def _is_dominated(self, job: Job, metrics: dict[str, float]) -> bool:
        limit = self._sweep.stop.dominated
        if limit is None or not {"kl", "reward"} <= metrics.keys():
            return False
        better = any(
            row.kl < metrics["kl"] and row.reward - 2 * row.reward_se > metrics["reward"]
            for name, rows in self._rows.items()
            if name != job.name
            for row in rows
        )
        self._beaten[job.name] = self._beaten.get(job.name, 0) + 1 if better else 0
        return self._beaten[job.name] >= limit
