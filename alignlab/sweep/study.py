"""A sweep's study in Optuna, and the trials that this process runs.

A trial fills a *slot*: a point of a design, or a place in a sampled study. A slot belongs to its
lowest-numbered trial that is waiting, running or finished, and Optuna gives a waiting trial to one
process only. If another process enqueued a second trial for the slot at the same time, that trial
is dropped when its turn comes. So each slot ends with exactly one complete trial, even if processes
are killed at any moment.

Optuna alone does not guarantee this. ``enqueue_trial(skip_if_exists=True)`` looks and enqueues in
two steps, so two processes may enqueue a point twice. ``RetryFailedTrialCallback`` enqueues the
retry after it has failed the stale trial, so a process killed in between loses the point. It never
retries trials that failed with an error, nor those in a journal file, which has no heartbeats.
"""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from alignlab.plan.experiment import Job
from alignlab.plan.space import Point, build
from alignlab.sweep.spec import Sweep
from alignlab.sweep.storage import GRACE, HEARTBEAT

BY_HAND = 1_000_000  # slots from here on are points that the user added
SLOT, OWNER, ERROR, DIVERGED, STOPPED = "slot", "owner", "error", "diverged", "stopped"
TAKEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
REST = 2.0  # seconds between two looks at what other processes do


def open_study(sweep: Sweep, storage: BaseStorage) -> optuna.Study:
    """The study of exactly this definition, created if it does not exist.

    Its name ends in a hash of arms, space, seeds, metrics and inputs. So trials that cannot be
    compared never share a study, and a changed sweep begins a new one, in which runs that are not
    affected are complete at once. A sampler that uses results is seeded differently in each call;
    for a fixed design the sampler is not used.
    """
    name, settings = ("random", {}) if sweep.points is not None else sweep.keys.sampler
    seed = (int(settings.get("seed", 0)) + time.time_ns()) % 2**31
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=f"{sweep.plan.name}-{sweep.definition[:8]}",
            storage=storage,
            directions=[StudyDirection[name.upper()] for name in sweep.keys.metrics.values()],
            sampler=build(name, {**settings, "seed": seed}),
            pruner=None if sweep.keys.pruner is None else build(*sweep.keys.pruner),
            load_if_exists=True,
        )
        study.set_metric_names(list(sweep.keys.metrics))
    return study


def is_by_hand(trial: FrozenTrial) -> bool:
    """Whether the user added the trial's point; such trials do not count towards ``trials``."""
    slot = trial.user_attrs.get(SLOT)
    return slot is not None and slot >= BY_HAND


@dataclass(eq=False)
class RunningTrial:
    """A trial of this process: its runs still to start, and the results of finished ones."""

    trial: optuna.Trial
    point: Point
    waiting: list[Job] = field(default_factory=list)
    at_work: set[str] = field(default_factory=set)
    measures: list[dict[str, float]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    pruned: bool = False

    def note(self, kind: str, job: Job, why: str) -> None:
        """Note that a run was stopped before its last step, or went beyond the KL limit."""
        before = f"{self.notes[kind]}; " if kind in self.notes else ""
        self.notes[kind] = f"{before}{job.name}: {why}"


class Slots:
    """The trials of a sweep's study, as one process sees them.

    Args:
        sweep: The sweep.
        study: Optuna's study.
        storage: The study's storage.
        owner: Name of the results folder, in which one process at a time works; ``None`` if no
            other folder can use the storage.
    """

    def __init__(
        self, sweep: Sweep, study: optuna.Study, storage: BaseStorage, owner: str | None
    ) -> None:
        self._study, self._storage, self._space = study, storage, sweep.space
        self._points, self._trials, self._owner = sweep.points, sweep.keys.trials, owner
        self._mine: dict[int, int] = {}  # number -> id of the trials that this process runs
        self._ownerless: dict[int, float] = {}  # number -> time first seen without owner
        self._looked = self._beaten = 0.0

    def begin(self) -> list[RunningTrial]:
        """Enqueue open and failed slots; resume the trials that this folder left running."""
        self.enqueue_open(failed_too=True)
        left = [trial for trial in self._all(TrialState.RUNNING) if self._is_mine(trial)]
        claimed = [self._claim(optuna.Trial(self._study, trial._trial_id)) for trial in left]
        return [running for running in claimed if running is not None]

    def next(self) -> RunningTrial | None:
        """Claim another trial, if there is one."""
        self._look_at_others()
        while True:
            if not self._all(TrialState.WAITING) and (self._points is not None or self._is_full()):
                return None
            with warnings.catch_warnings():
                # keep_alive sends the heartbeats of all running trials.
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                trial = self._study.ask()
            running = self._claim(trial)
            if running is not None:
                return running

    def running_elsewhere(self) -> int:
        """The number of trials that other processes run, dead ones included until noticed."""
        return sum(not self._is_mine(trial) for trial in self._all(TrialState.RUNNING))

    def is_all_done(self) -> bool:
        """Whether no trial waits or runs elsewhere, after a last look at the other processes.

        If that look finds a dead trial, the trial waits again, so not all is done.
        """
        if not self._is_idle():
            return False
        self._looked = -math.inf  # a process may have died since the last look
        self._look_at_others()
        return self._is_idle()

    def _is_idle(self) -> bool:
        return not (self._all(TrialState.WAITING) or self.running_elsewhere())

    def keep_alive(self) -> None:
        """Send heartbeats for this process's trials when they are due; a journal stores none."""
        if isinstance(self._storage, RDBStorage) and time.monotonic() - self._beaten >= HEARTBEAT:
            self._beaten = time.monotonic()
            for trial_id in self._mine.values():
                self._storage.record_heartbeat(trial_id)

    def holds(self, running: RunningTrial) -> bool:
        """Whether this process still owns the trial; after a long silence another one takes it."""
        number = running.trial.number
        return any(trial.number == number for trial in self._all(TrialState.RUNNING))

    def tell(
        self,
        trial: optuna.Trial,
        state: TrialState,
        notes: Mapping[str, str],
        values: Sequence[float] | None = None,
    ) -> bool:
        """End a trial; returns whether this process still owned it.

        Args:
            trial: The trial.
            state: ``COMPLETE`` also for a trial beyond the KL bound, so that samplers learn to
                avoid it; ``FAIL`` for one that the next call tries again, unless it diverged.
            notes: Kept with the trial, by kind: ``ERROR``, ``DIVERGED``, ``STOPPED``.
            values: Of a complete trial.
        """
        self._mine.pop(trial.number, None)
        try:
            for kind, why in notes.items():
                trial.set_user_attr(kind, why)
            self._study.tell(trial.number, values, state=state)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False  # another process counted it as dead and runs it now
        return True

    def enqueue_open(self, *, failed_too: bool) -> None:
        """Enqueue a trial for each slot that has none, or whose trials all failed.

        Slots that diverged are left out. Without ``failed_too``, so are slots whose last trial
        failed with an error; only those whose process died are tried again.
        """
        trials: dict[int, list[FrozenTrial]] = {slot: [] for slot in range(len(self._points or []))}
        for trial in self._all():
            slot = trial.user_attrs.get(SLOT)
            if slot is not None:
                trials.setdefault(slot, []).append(trial)
        for slot, own in trials.items():
            if any(trial.state in TAKEN or DIVERGED in trial.user_attrs for trial in own):
                continue
            if failed_too or not own or ERROR not in own[-1].user_attrs:
                if self._points is not None and slot < BY_HAND:
                    params = self._space.params(self._points[slot])
                else:
                    params = own[-1].system_attrs.get("fixed_params") or own[-1].params
                self._study.enqueue_trial(params, user_attrs={SLOT: slot})

    def _look_at_others(self) -> None:
        """Enqueue the slots of dead processes again, at most once in ``REST`` seconds."""
        if self._owner is None or time.monotonic() - self._looked < REST:
            return
        self._looked = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        for trial in self._all(TrialState.RUNNING):
            # Its process may have died between claiming it and writing its name to it.
            if OWNER not in trial.user_attrs:
                first = self._ownerless.setdefault(trial.number, time.monotonic())
                if time.monotonic() - first > GRACE:
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        self.enqueue_open(failed_too=False)

    def _claim(self, trial: optuna.Trial) -> RunningTrial | None:
        """Make ``trial`` this process's; ``None`` if another trial has its slot."""
        self._mine[trial.number] = trial._trial_id
        self._beaten = 0.0
        self.keep_alive()  # before the name: a trial with a name and no sign of life never dies
        trial.set_user_attr(OWNER, self._owner)
        slot = trial.user_attrs.get(SLOT, None if self._points is not None else trial.number)
        if slot is None or self._is_taken(trial, slot):
            notes = {ERROR: "another trial has its point"}
            trial.set_user_attr(SLOT, None)  # it no longer counts for the slot
            self.tell(trial, TrialState.FAIL, notes)
            return None
        trial.set_user_attr(SLOT, slot)
        return RunningTrial(trial, self._space.suggest(trial))

    def _is_taken(self, trial: optuna.Trial, slot: int) -> bool:
        before = [t for t in self._all(*TAKEN) if t.number < trial.number]
        if self._points is None and self._trials is not None and SLOT not in trial.user_attrs:
            sampled = [t for t in before if not is_by_hand(t)]
            return len(sampled) >= self._trials  # two processes claimed the last one
        return any(other.user_attrs.get(SLOT) == slot for other in before)

    def _is_full(self) -> bool:
        sampled = (trial for trial in self._all() if not is_by_hand(trial))
        slots = {trial.user_attrs.get(SLOT) for trial in sampled} - {None}
        return self._trials is not None and len(slots) >= self._trials

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return self._owner is None or trial.user_attrs.get(OWNER) == self._owner

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)
