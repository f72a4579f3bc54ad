"""Which trials are this process's to run: claims that no two processes share, and retries.

A trial stands for a *slot*: a point of a design, or a place in a sampled study. A slot is taken by
its lowest-numbered trial that is waiting, running or complete; Optuna hands a waiting trial to one
process only. So whatever is killed, a slot ends with exactly one complete trial: a second trial
that another process added at the same time is dropped before it runs.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from alignlab.sweep.space import Point, Space
from alignlab.sweep.storage import GRACE, HEARTBEAT, Storage

SLOT, OWNER, ERROR, DIVERGED = "slot", "owner", "error", "diverged"
STOPPED, FILLED = "stopped", "filled"
TAKEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
REST = 2.0  # seconds between two looks at what other processes do


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this process runs, and its point."""

    slot: int
    trial: optuna.Trial
    point: Point


class Slots:
    """The trials of one study, as one process sees them.

    Args:
        study: Optuna's study.
        storage: The study's storage.
        space: What its parameters mean.
        points: The design's points; ``None`` where the sampler chooses as it goes.
        trials: How many slots a sampled study has; ``None`` for no end.
        owner: Name of the results folder, which one process at a time works in.
        private: No other folder can know the storage.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: Storage,
        space: Space,
        points: Sequence[Point] | None,
        trials: int | None,
        owner: str,
        *,
        private: bool,
    ) -> None:
        self._study, self._storage, self._space = study, storage, space
        self._points, self._trials = points, trials
        self._owner, self._private = owner, private
        self._mine: dict[int, optuna.Trial] = {}  # number -> trial in hand
        self._ownerless: dict[int, float] = {}  # trial id -> when it was first seen so
        self._looked = self._beaten = 0.0

    def begin(self, *, created: bool) -> list[ClaimedTrial]:
        """Fill the queue, take up what this folder left running, give failed slots another try.

        Args:
            created: This process made the study just now.
        """
        self._fill(created)
        self._requeue(failed_too=True)
        started = []
        for frozen in self._all(TrialState.RUNNING):
            if self._is_mine(frozen):
                claimed = self._claimed(optuna.Trial(self._study, frozen._trial_id))
                started += [] if claimed is None else [claimed]
        return started

    def next(self) -> ClaimedTrial | None:
        """ClaimedTrial another trial, if there is one to be had."""
        self._look_round()
        while True:
            waiting = bool(self._all(TrialState.WAITING))
            if not waiting and (self._points is not None or self._is_full()):
                return None
            with warnings.catch_warnings():
                # Signs of life are given here, for all trials in hand at once.
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                trial = self._study.ask()
            claimed = self._claimed(trial)
            if claimed is not None:
                return claimed

    def others_at_work(self) -> int:
        """Trials that run elsewhere; dead ones are recognised by their missing heartbeat."""
        self._look_round()
        running = self._all(TrialState.RUNNING)
        return sum(not self._is_mine(trial) for trial in running)

    def keep_alive(self) -> None:
        """Signs of life of the trials in hand, when they are due."""
        if time.monotonic() - self._beaten >= HEARTBEAT:
            self._beaten = time.monotonic()
            for trial in self._mine.values():
                self._storage.alive(trial._trial_id)

    def complete(
        self, claimed: ClaimedTrial, values: Sequence[float], notes: Mapping[str, str]
    ) -> bool:
        """The trial's values; whether it still was this process's to end.

        One that ``diverged`` beyond the KL bound is complete, too: samplers learn to avoid it.
        """
        return self._end(claimed.trial, TrialState.COMPLETE, notes, values)

    def prune(self, claimed: ClaimedTrial, notes: Mapping[str, str]) -> bool:
        """The trial was stopped early for being worse than others."""
        return self._end(claimed.trial, TrialState.PRUNED, notes)

    def fail(self, claimed: ClaimedTrial, kind: str, why: str) -> bool:
        """The trial failed (``error``: tried again by the next call) or ``diverged``."""
        return self._end(claimed.trial, TrialState.FAIL, {kind: why})

    def holds(self, claimed: ClaimedTrial) -> bool:
        """Whether the trial is still this process's: a long silence makes it another's."""
        return any(t.number == claimed.trial.number for t in self._all(TrialState.RUNNING))

    def _end(
        self,
        trial: optuna.Trial,
        state: TrialState,
        notes: Mapping[str, str],
        values: Sequence[float] | None = None,
    ) -> bool:
        self._mine.pop(trial.number, None)
        try:
            for kind, why in notes.items():
                trial.set_user_attr(kind, why)
            self._study.tell(trial.number, values, state=state)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False  # it was taken for dead, and another process has it now
        return True

    def _fill(self, created: bool) -> None:
        """Put a waiting trial into every slot of the design that has none.

        The process that made the study does so; the others wait while it is at it.
        """
        if self._points is None:
            return
        before = -1
        while not created and not self._private and FILLED not in self._study.user_attrs:
            now = len(self._all())
            if now == before:
                break  # the process that was at it is dead
            before = now
            time.sleep(REST)
        slots = {trial.user_attrs.get(SLOT) for trial in self._all()}
        for slot, point in enumerate(self._points):
            if slot not in slots:
                self._enqueue(slot, self._space.params(point))
        if FILLED not in self._study.user_attrs:
            self._study.set_user_attr(FILLED, True)

    def _enqueue(self, slot: int, params: dict[str, Any]) -> None:
        self._study.enqueue_trial(params, user_attrs={SLOT: slot})

    def _look_round(self) -> None:
        """Give slots of dead processes another try, now and then."""
        if time.monotonic() - self._looked < REST:
            return
        self._looked = time.monotonic()
        if self._private:
            return
        if self._storage.heartbeat:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self._study)
        self._fail_ownerless()
        self._requeue(failed_too=False)

    def _fail_ownerless(self) -> None:
        """Trials whose process died between claiming them and writing its name to them."""
        for trial in self._all(TrialState.RUNNING):
            if OWNER not in trial.user_attrs:
                first = self._ownerless.setdefault(trial._trial_id, time.monotonic())
                if time.monotonic() - first > GRACE:
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def _requeue(self, *, failed_too: bool) -> None:
        """Another trial for each slot whose trials all failed, unless it diverged.

        Without ``failed_too`` only where nobody wrote down why: there the process had died.
        """
        slots: dict[int, list[FrozenTrial]] = {}
        for trial in self._all():
            slot = self._slot(trial)
            if slot is not None:
                slots.setdefault(slot, []).append(trial)
        for slot, trials in slots.items():
            last = trials[-1]
            if any(trial.state in TAKEN for trial in trials) or DIVERGED in last.user_attrs:
                continue
            if failed_too or ERROR not in last.user_attrs:
                params = last.system_attrs.get("fixed_params") or last.params
                self._enqueue(slot, params)

    def _claimed(self, trial: optuna.Trial) -> ClaimedTrial | None:
        """Make ``trial`` this process's; ``None`` if its slot is another trial's."""
        trial.set_user_attr(OWNER, self._owner)
        self._mine[trial.number] = trial
        self._storage.alive(trial._trial_id)
        slot = trial.user_attrs.get(SLOT, None if self._points is not None else trial.number)
        if slot is None or self._is_taken(trial, slot):
            self._end(trial, TrialState.FAIL, {ERROR: "its point is another trial's"})
            return None
        trial.set_user_attr(SLOT, slot)
        return ClaimedTrial(slot, trial, self._space.suggest(trial))

    def _is_taken(self, trial: optuna.Trial, slot: int) -> bool:
        before = [t for t in self._all(*TAKEN) if t.number < trial.number]
        if self._points is None and self._trials is not None and SLOT not in trial.user_attrs:
            return len(before) >= self._trials  # two processes asked for the last one
        return any(self._slot(other) == slot for other in before)

    def _is_full(self) -> bool:
        slots = {self._slot(trial) for trial in self._all()} - {None}
        return self._trials is not None and len(slots) >= self._trials

    def _slot(self, trial: FrozenTrial) -> int | None:
        slot: int | None = trial.user_attrs.get(SLOT)
        return slot

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return self._private or trial.user_attrs.get(OWNER) == self._owner

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)
