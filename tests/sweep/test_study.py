"""Slots of two processes on one study, with their deaths in between."""

import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from alignlab.plan.space import Dimension, Point, Space
from alignlab.sweep import study as module
from alignlab.sweep.study import DIVERGED, ERROR, SLOT, RunningTrial, Slots

SPACE = Space({"dpo": [Dimension("beta", "beta", CategoricalDistribution([1.0, 2.0]))]})
POINTS = SPACE.grid()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.setattr(module, "REST", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = optuna.storages.RDBStorage(
            f"sqlite:///{tmp_path}/s.db", heartbeat_interval=1, grace_period=60
        )
    return optuna.create_study(storage=backend, sampler=optuna.samplers.RandomSampler(0))


def process(
    study: optuna.Study,
    owner: str,
    *,
    points: list[Point] | None = POINTS,
    trials: int | None = None,
) -> Slots:
    sweep: Any = SimpleNamespace(space=SPACE, points=points, keys=SimpleNamespace(trials=trials))
    return Slots(sweep, study, study._storage._backend, owner)  # type: ignore[attr-defined]


def begun(slots: Slots) -> list[float]:
    return [values(running) for running in slots.begin()]


def values(running: RunningTrial | None) -> float:
    assert running is not None
    beta = running.point.values["beta"]
    assert isinstance(beta, float)
    return beta


def two_with_a_trial_each(
    study: optuna.Study,
) -> tuple[Slots, Slots, RunningTrial, RunningTrial]:
    a, b = process(study, "a"), process(study, "b")
    begun(a)
    begun(b)
    first, second = a.next(), b.next()
    assert first is not None
    assert second is not None
    return a, b, first, second


def test_two_processes_share_the_points_and_get_none_twice(study: optuna.Study) -> None:
    a, b = process(study, "a"), process(study, "b")
    assert begun(a) == begun(b) == []
    assert sorted([values(a.next()), values(b.next())]) == [1.0, 2.0]
    assert a.next() is b.next() is None
    assert a.running_elsewhere() == 1


def test_both_filling_the_queue_still_runs_each_point_once(study: optuna.Study) -> None:
    a, b = process(study, "a"), process(study, "b")
    for _ in (a, b):  # neither sees that the other enqueues them, too
        for slot, point in enumerate(POINTS):
            study.enqueue_trial(SPACE.params(point), user_attrs={SLOT: slot})
    got = [running for running in (a.next(), b.next(), a.next(), b.next()) if running is not None]
    assert sorted(map(values, got)) == [1.0, 2.0]
    given_up = [t for t in study.trials if t.state is TrialState.FAIL]
    assert [t.user_attrs[SLOT] for t in given_up] == [None, None]  # no table shows them


def test_a_folder_takes_up_what_it_left_running(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a)
    first = a.next()
    again = process(study, "a")  # the process was killed and is called again
    (running,) = again.begin()
    assert values(running) == values(first)
    assert again.tell(running.trial, TrialState.COMPLETE, {}, [0.0])
    assert len(study.trials) == 2


def test_a_silent_trial_becomes_anothers(study: optuna.Study) -> None:
    a, b, lost, own = two_with_a_trial_each(study)
    study._storage._backend.grace_period = 2  # type: ignore[attr-defined]
    time.sleep(3.1)
    b._beaten = 0.0
    b.keep_alive()
    taken = b.next()
    assert values(taken) == values(lost)
    assert not a.holds(lost)
    assert not a.tell(lost.trial, TrialState.COMPLETE, {}, [0.0])  # too late
    assert b.holds(own)


def test_a_trial_that_died_after_the_last_look_is_not_done(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that is found dead waits from then on: nothing runs, and yet not all is done."""
    monkeypatch.setattr(module, "REST", 3600.0)  # no look between
    _, b, lost, own = two_with_a_trial_each(study)
    assert b.tell(own.trial, TrialState.COMPLETE, {}, [0.0])
    assert b.next() is None
    assert not b.is_all_done()  # it may yet live
    study.tell(lost.trial.number, state=TrialState.FAIL)  # another process found it dead, and died
    assert not b.is_all_done()
    taken = b.next()
    assert taken is not None
    assert values(taken) == values(lost)
    assert b.tell(taken.trial, TrialState.COMPLETE, {}, [0.0])
    assert b.is_all_done()


@pytest.mark.parametrize("killed_in", ["record_heartbeat", "set_trial_user_attr"])
def test_a_trial_whose_process_died_while_claiming_it_becomes_anothers(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "GRACE", 3.0)
    backend: Any = study._storage._backend  # type: ignore[attr-defined]
    backend.grace_period = 3
    a, b = process(study, "a"), process(study, "b")
    begun(a)
    with monkeypatch.context() as patched:
        patched.setattr(backend, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            a.next()
    assert values(b.next()) == 2.0
    deadline = time.monotonic() + 30
    while (taken := b.next()) is None:
        assert time.monotonic() < deadline
        b._beaten = 0.0
        b.keep_alive()
        time.sleep(0.2)
    assert values(taken) == 1.0


def test_failed_points_are_tried_by_the_next_call_and_diverged_ones_never(
    study: optuna.Study,
) -> None:
    a = process(study, "a")
    begun(a)
    first, second = a.next(), a.next()
    assert first is not None
    assert second is not None
    a.tell(first.trial, TrialState.FAIL, {ERROR: "a bug"})
    a.tell(second.trial, TrialState.FAIL, {DIVERGED: "NaN"})
    assert a.next() is None  # not in the same call
    again = process(study, "a")
    begun(again)
    assert values(again.next()) == values(first)
    assert again.next() is None


def test_a_pruned_point_is_done_with(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a)
    first = a.next()
    assert first is not None
    assert a.tell(first.trial, TrialState.PRUNED, {"stopped": "pruned at step 2"})
    again = process(study, "a")
    begun(again)
    assert values(again.next()) != values(first)
    assert again.next() is None
    assert study.trials[0].user_attrs["stopped"] == "pruned at step 2"


def test_what_another_took_over_can_neither_be_ended_nor_noted(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a)
    lost = a.next()
    assert lost is not None
    study.tell(lost.trial.number, state=TrialState.FAIL)
    assert not a.tell(lost.trial, TrialState.COMPLETE, {DIVERGED: "KL 4 > 3"}, [0.0])
    assert DIVERGED not in study.trials[0].user_attrs


def test_a_sampled_study_has_so_many_slots_whoever_asks(study: optuna.Study) -> None:
    a = process(study, "a", points=None, trials=3)
    b = process(study, "b", points=None, trials=3)
    got = [a.next(), b.next(), a.next(), b.next()]
    assert [running is None for running in got] == [False, False, False, True]
    for slots, running in zip((a, b, a), got, strict=False):
        assert running is not None
        assert slots.tell(running.trial, TrialState.COMPLETE, {}, [1.0])
    assert a.next() is None
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 3
