"""Slots of two processes on one study, with their deaths in between."""

import time
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from alignlab.sweep import slots as module
from alignlab.sweep.slots import DIVERGED, ERROR, ClaimedTrial, Slots
from alignlab.sweep.space import Dimension, Point, Space
from alignlab.sweep.storage import Storage

SPACE = Space({"dpo": [Dimension("beta", "beta", CategoricalDistribution([1.0, 2.0]))]})
POINTS = SPACE.grid()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.setattr(module, "REST", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backend = optuna.storages.RDBStorage(
            f"sqlite:///{tmp_path}/s.db", heartbeat_interval=1, grace_period=1
        )
    return optuna.create_study(storage=backend, sampler=optuna.samplers.RandomSampler(0))


def process(
    study: optuna.Study,
    owner: str,
    *,
    points: list[Point] | None = POINTS,
    trials: int | None = None,
) -> Slots:
    storage = Storage(study._storage._backend, "", heartbeat=True)  # type: ignore[attr-defined]
    return Slots(study, storage, SPACE, points, trials, owner, private=False)


def begun(slots: Slots, created: bool = False) -> list[float]:
    return [values(claimed) for claimed in slots.begin(created=created)]


def values(claimed: ClaimedTrial | None) -> float:
    assert claimed is not None
    beta = claimed.point.values["beta"]
    assert isinstance(beta, float)
    return beta


def test_two_processes_share_the_points_and_get_none_twice(study: optuna.Study) -> None:
    a, b = process(study, "a"), process(study, "b")
    assert begun(a, created=True) == begun(b) == []
    assert sorted([values(a.next()), values(b.next())]) == [1.0, 2.0]
    assert a.next() is b.next() is None
    assert a.others_at_work() == 1


def test_both_filling_the_queue_still_runs_each_point_once(study: optuna.Study) -> None:
    a, b = process(study, "a"), process(study, "b")
    for slots in (a, b):  # neither sees that the other is at it
        for slot, point in enumerate(POINTS):
            slots._enqueue(slot, SPACE.params(point))
    got = [claimed for claimed in (a.next(), b.next(), a.next(), b.next()) if claimed is not None]
    assert sorted(map(values, got)) == [1.0, 2.0]


def test_a_folder_takes_up_what_it_left_running(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a, created=True)
    first = a.next()
    again = process(study, "a")  # the process was killed and is called again
    (claimed,) = again.begin(created=False)
    assert values(claimed) == values(first)
    assert again.complete(claimed, [0.0], {})
    assert len(study.trials) == 2


def test_a_silent_trial_becomes_anothers(study: optuna.Study) -> None:
    a, b = process(study, "a"), process(study, "b")
    begun(a, created=True)
    begun(b)
    lost, own = a.next(), b.next()
    assert lost is not None
    assert own is not None
    time.sleep(2.1)
    b._beaten = 0.0
    b.keep_alive()
    taken = b.next()
    assert values(taken) == values(lost)
    assert not a.holds(lost)
    assert not a.complete(lost, [0.0], {})  # too late
    assert b.holds(own)


def test_failed_points_are_tried_by_the_next_call_and_diverged_ones_never(
    study: optuna.Study,
) -> None:
    a = process(study, "a")
    begun(a, created=True)
    first, second = a.next(), a.next()
    assert first is not None
    assert second is not None
    a.fail(first, ERROR, "a bug")
    a.fail(second, DIVERGED, "NaN")
    assert a.next() is None  # not in the same call
    again = process(study, "a")
    begun(again)
    assert values(again.next()) == values(first)
    assert again.next() is None


def test_a_pruned_point_is_done_with(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a, created=True)
    first = a.next()
    assert first is not None
    assert a.prune(first, {"stopped": "pruned at step 2"})
    again = process(study, "a")
    begun(again)
    assert values(again.next()) != values(first)
    assert again.next() is None
    assert study.trials[0].user_attrs["stopped"] == "pruned at step 2"


def test_what_another_took_over_can_neither_be_ended_nor_noted(study: optuna.Study) -> None:
    a = process(study, "a")
    begun(a, created=True)
    lost = a.next()
    assert lost is not None
    study.tell(lost.trial.number, state=TrialState.FAIL)
    assert not a.complete(lost, [0.0], {DIVERGED: "KL 4 > 3"})
    assert DIVERGED not in study.trials[0].user_attrs


def test_a_sampled_study_has_so_many_slots_whoever_asks(study: optuna.Study) -> None:
    a = process(study, "a", points=None, trials=3)
    b = process(study, "b", points=None, trials=3)
    got = [a.next(), b.next(), a.next(), b.next()]
    assert [claimed is None for claimed in got] == [False, False, False, True]
    for slots, claimed in zip((a, b, a), got, strict=False):
        assert claimed is not None
        assert slots.complete(claimed, [1.0], {})
    assert a.next() is None
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 3
