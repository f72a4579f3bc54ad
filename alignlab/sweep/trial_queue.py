"""Trials as jobs: which run comes next, what a finished one is worth, what stops one early."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignlab.errors import ConfigError
from alignlab.pipeline.scheduler import NOT_FINITE
from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job
from alignlab.results.tables import read_points
from alignlab.sweep.outcomes import Outcome, Outcomes
from alignlab.sweep.slots import DIVERGED, ERROR, STOPPED, ClaimedTrial, Slots
from alignlab.sweep.spec import Sweep

# Beginnings of the reasons for which a run is stopped.
PRUNED, DOMINATED = "pruned", "other runs had more reward at less KL"


@dataclass
class Running:
    """A claimed trial: its waiting runs and the outcomes of the finished ones."""

    claimed: ClaimedTrial
    waiting: list[Job]
    at_work: set[str] = field(default_factory=set)
    measures: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    pruned: bool = False

    def note(self, kind: str, job: Job, why: str) -> None:
        """A run did not get to its last step, or got too far."""
        self.notes.setdefault(kind, []).append(f"{job.name}: {why}")


class TrialQueue:
    """Where the scheduler takes a sweep's jobs from.

    Args:
        sweep: The sweep.
        plan: Its results folder.
        slots: The study's trials.
        started: Trials that an earlier call left running.
        record: Puts a finished run's rows into the tables.
        say: Shows a line.
        clock: Seconds, for the time budget.
    """

    def __init__(
        self,
        sweep: Sweep,
        plan: Plan,
        slots: Slots,
        started: Sequence[ClaimedTrial],
        record: Callable[[Job], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweep, self._plan, self._slots = sweep, plan, slots
        self._record, self._say = record, say
        self._clock, self._began = clock, clock()
        self._again: list[Job] = []
        self._of_job: dict[str, Running] = {}
        self._running: list[Running] = []
        self._outcomes = Outcomes(plan)
        self._recorded = self._outcomes.recorded
        self._beaten: dict[str, int] = {}  # run -> evaluations in a row that were dominated
        self._said_wait = False
        self.complete = 0
        for claimed in started:
            self._begin(claimed)

    def next(self) -> Job | None:
        """A run of a trial in hand, or of a new one."""
        self._slots.keep_alive()
        if self._again:
            return self._again.pop()
        while True:
            job = self._waiting_job()
            if job is not None or self._late():
                return job
            claimed = self._slots.next()
            if claimed is None:
                return None
            self._begin(claimed)

    def over(self) -> bool:
        """Whether nothing can come any more; trials of other folders may die and be ours then."""
        if self._running or self._again or self._late():
            return not (self._running or self._again)
        others = self._slots.others_at_work()
        if others and not self._said_wait:
            self._said_wait = True
            self._say(f"{others} trials run elsewhere; waiting, to take over any that die")
        return not others

    def again(self, job: Job) -> None:
        """``job`` lost its worker."""
        self._again.append(job)

    def finished(self, job: Job) -> None:
        """``job`` left its output; its trial is complete with the last of its runs."""
        running = self._of_job.pop(job.name, None)
        if running is not None:
            running.at_work.discard(job.name)
            self._add_outcome(running, job)
            self._close_if_done(running)

    def drop(self, name: str, why: str) -> list[str]:
        """A run failed, and its trial with it."""
        running = self._of_job.get(name)
        if running is None:
            return []
        lost = [job.name for job in running.waiting]
        kind = DIVERGED if why.startswith(NOT_FINITE) else ERROR
        self._forget(running)
        self._slots.fail(running.claimed, kind, f"{name}: {why}")
        return lost

    def drop_all(self) -> list[str]:
        """Nothing new: what runs goes on."""
        return []

    def measured(self, job: Job, step: int, metrics: dict[str, float]) -> str | None:
        """Report to the pruner, look for runs that are better in everything."""
        self._slots.keep_alive()
        running = self._of_job.get(job.name)
        if running is None:
            return None
        if self._sweep.pruner is not None and not running.measures:
            (metric,) = self._sweep.metrics
            if metric in metrics:
                with warnings.catch_warnings():
                    # A continued run reports its last evaluation once more.
                    warnings.filterwarnings("ignore", message="The reported value is ignored")
                    running.claimed.trial.report(metrics[metric], step)
                if running.claimed.trial.should_prune():
                    running.pruned = True
                    return f"{PRUNED} at step {step}"
        if self._is_dominated(job, metrics):
            return f"{DOMINATED}, up to step {step}"
        return None

    def holds(self, job: Job) -> bool:
        """Whether the job's rows are this folder's to keep, and no other's by now."""
        running = self._of_job.get(job.name)
        return running is None or self._slots.holds(running.claimed)

    def _late(self) -> bool:
        minutes = self._sweep.minutes
        return minutes is not None and self._clock() - self._began > 60 * minutes

    def _begin(self, claimed: ClaimedTrial) -> None:
        running = Running(claimed, [])
        self._running.append(running)
        for job in self._sweep.jobs(claimed.point):
            if self._stands(job):
                self._add_outcome(running, job)
            else:
                running.waiting.append(job)
                self._of_job[job.name] = running
        self._close_if_done(running)

    def _stands(self, job: Job) -> bool:
        """Whether a run need not be made: it is done, or its rows are there with every metric."""
        outcome = self._outcomes.of(job)
        if self._is_cut_short(outcome):
            return False
        recorded = state.is_recorded(self._plan, job, self._recorded)
        if state.is_done(self._plan, job):
            if not recorded:  # the parent was killed just before
                self._record(job)
            return True
        return recorded and self._sweep.metrics.keys() <= outcome.measures.keys()

    def _is_cut_short(self, outcome: Outcome) -> bool:
        """Whether it was stopped by a rule that the sweep had then and has no longer."""
        return (outcome.stopped.startswith(PRUNED) and self._sweep.pruner is None) or (
            outcome.stopped.startswith(DOMINATED) and self._sweep.stop.dominated is None
        )

    def _waiting_job(self) -> Job | None:
        for running in self._running:
            # A pruner judges by the first seed; the others are for trials that it lets live.
            one_by_one = self._sweep.pruner is not None and running.at_work
            if running.waiting and not one_by_one:
                job = running.waiting.pop(0)
                running.at_work.add(job.name)
                return job
        return None

    def _add_outcome(self, running: Running, job: Job) -> None:
        outcome, limit = self._outcomes.of(job), self._sweep.stop.kl
        running.measures.append(outcome.measures)
        # What was pruned stays so, in a study made later and behind a killed parent, too.
        running.pruned |= outcome.stopped.startswith(PRUNED)
        if limit is not None and outcome.measures.get("kl", 0.0) > limit:
            why = f"KL {outcome.measures['kl']:.4g} > {limit:g}"
            running.note(DIVERGED, job, outcome.stopped or why)
        elif outcome.stopped:
            running.note(STOPPED, job, outcome.stopped)

    def _close_if_done(self, running: Running) -> None:
        if running.pruned:
            running.waiting.clear()
        if running.waiting or running.at_work:
            return
        self._forget(running)
        notes = {kind: "; ".join(whys) for kind, whys in running.notes.items()}
        if running.pruned:
            self._slots.prune(running.claimed, notes)
            return
        values = [self._mean(running, name) for name in self._sweep.metrics]
        if not all(math.isfinite(value) for value in values):
            found = dict(zip(self._sweep.metrics, values, strict=True))
            self._slots.fail(running.claimed, DIVERGED, f"not finite: {found}")
        elif self._slots.complete(running.claimed, values, notes):
            self.complete += 1

    def _forget(self, running: Running) -> None:
        self._running.remove(running)
        self._of_job = {name: r for name, r in self._of_job.items() if r is not running}
        self._again = [job for job in self._again if job.name in self._of_job]

    def _mean(self, running: Running, metric: str) -> float:
        found = [own[metric] for own in running.measures if metric in own]
        if len(found) < len(running.measures):
            logged = sorted(set().union(*running.measures))
            raise ConfigError(
                f"metric {metric!r} was never logged by arm {running.claimed.point.arm!r}; logged: "
                f"{', '.join(logged) or 'nothing'}. Name one of these in the sweep's metrics: "
                "what has been trained is kept."
            )
        return sum(found) / len(found)

    def _is_dominated(self, job: Job, metrics: dict[str, float]) -> bool:
        limit = self._sweep.stop.dominated
        path = self._plan.results / state.POINTS
        if limit is None or not path.exists() or not {"kl", "reward"} <= metrics.keys():
            return False
        better = any(
            row.kl < metrics["kl"] and row.reward - 2 * row.reward_se > metrics["reward"]
            for row in read_points(path)
            if row.run_id != job.name
        )
        self._beaten[job.name] = self._beaten.get(job.name, 0) + 1 if better else 0
        return self._beaten[job.name] >= limit
