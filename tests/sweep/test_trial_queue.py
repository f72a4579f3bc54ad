"""What becomes of a trial's runs, with rows written by hand instead of by workers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from alignlab.files import DONE, read_record, stamp, write_record
from alignlab.plan.experiment import Job
from alignlab.results.run_records import table_of
from alignlab.sweep.spec import StopKeys, Sweep
from alignlab.sweep.study import DIVERGED, STOPPED
from alignlab.sweep.trial_queue import TrialQueue
from tests.report.test_page import point


@dataclass
class Hand:
    """A call of the sweep, without its workers."""

    sweep: Sweep
    study: optuna.Study
    trials: TrialQueue

    def take(self) -> Job:
        job = self.trials.next()
        assert job is not None
        return job

    def end(self, job: Job, *, kl: float = 1.0, reward: float = 0.0, **done: Any) -> None:
        """``job`` is done: two evaluations, of which the second counts."""
        rows = [point(job.name, 10, 9.0, 9.0), point(job.name, 20, kl, reward)]
        rows = [replace(row, config_sha=job.config_sha) for row in rows]
        folder = self.sweep.plan.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        left: dict[str, Any] = {"config_sha": job.config_sha, "files": {}, "logs": {}}
        left |= {"metrics": {}, "stopped": None, "points": [asdict(row) for row in rows]}
        table = table_of(self.sweep.plan.results, job.name)
        table.parent.mkdir(parents=True, exist_ok=True)
        table.touch()
        write_record(folder / DONE, left | {"table": stamp(table)} | done)
        self.trials.finished(job)

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.trials]


Begin = Callable[..., Hand]


PRUNER = ("threshold", {"upper": 5.0})
KL = {"metrics": {"kl": "minimize"}, "space": {"beta": [1.0, 2.0]}}


def test_a_pruner_judges_by_the_first_seed_and_the_second_waits_for_it(begin: Begin) -> None:
    hand = begin(KL, pruner=PRUNER)
    first = hand.take()
    other = hand.take()
    assert (first.name, other.name) == ("dpo-beta1-s0", "dpo-beta2-s0")
    assert hand.trials.evaluated(first, 10, {"kl": 4.0}) is None
    assert hand.trials.evaluated(other, 10, {"kl": 6.0}) == "pruned at step 10"
    hand.end(first, kl=4.0)
    second = hand.take()
    assert second.name == "dpo-beta1-s1"
    assert hand.trials.evaluated(second, 20, {"kl": 6.0}) is None  # the trial was let live
    hand.end(second, kl=6.0)
    hand.end(other, stopped="pruned at step 10")
    assert hand.trials.next() is None
    assert hand.trials.exhausted()
    assert hand.states() == ["COMPLETE", "PRUNED"]
    assert hand.study.trials[0].values == [5.0]  # the mean of both seeds


def test_its_trials_give_signs_of_life_when_it_is_asked(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand, asked = begin(KL), list[int]()
    monkeypatch.setattr(hand.trials._slots, "keep_alive", lambda: asked.append(1))
    hand.trials.keep_alive()
    assert asked == [1]


def test_a_continued_run_may_tell_of_an_evaluation_again(begin: Begin) -> None:
    hand = begin(KL, pruner=PRUNER)
    job = hand.take()
    for _ in range(2):
        assert hand.trials.evaluated(job, 10, {"kl": 4.0}) is None


def test_what_was_pruned_stays_so_for_the_next_call(begin: Begin) -> None:
    hand = begin(KL, pruner=PRUNER)
    hand.end(hand.take(), stopped="pruned at step 10")
    again = begin(KL, pruner=PRUNER)  # the parent was killed, or the sweep has one more value
    assert again.take().name == "dpo-beta2-s0"
    assert again.states() == ["PRUNED", "RUNNING"]
    without = begin(KL)
    assert without.take().name == "dpo-beta1-s0"  # cut short, so it is no whole run


def test_domination_needs_less_kl_and_surely_more_reward_several_times_in_a_row(
    begin: Begin,
) -> None:
    hand = begin(stop=StopKeys(dominated=2))
    best, job = hand.take(), hand.take()
    hand.end(best, kl=1.0, reward=1.0)  # standard error 0.1
    lesser, equal, cheaper = (
        {"kl": kl, "reward": reward} for kl, reward in [(2.0, 0.7), (2.0, 0.9), (0.5, 0.7)]
    )
    told = [
        hand.trials.evaluated(job, s, m) for s, m in enumerate([lesser, equal, lesser, cheaper])
    ]
    assert told == [None] * 4
    assert hand.trials.evaluated(job, 4, lesser) is None
    why = "other runs had more reward at less KL, up to step 5"
    assert hand.trials.evaluated(job, 5, lesser) == why
    hand.end(job, kl=2.0, stopped=why)
    while (left := hand.trials.next()) is not None:
        hand.end(left)
    stopped = [t for t in hand.study.trials if STOPPED in t.user_attrs]
    assert [(t.state, t.user_attrs[STOPPED]) for t in stopped] == [
        (TrialState.COMPLETE, f"{job.name}: {why}")
    ]
    # Without the rule the run it cut short is made whole; the others stand.
    without = begin()
    assert without.take().name == job.name
    assert not (without.sweep.plan.folder(job) / DONE).exists()  # else it counts as done
    assert without.trials.next() is None


def test_a_last_evaluation_beyond_the_bound_counts_as_diverged_too(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "_with_bound", lambda sweep, job: job)  # these train nothing
    hand = begin(stop=StopKeys(kl=3.0))
    while (job := hand.trials.next()) is not None:
        hand.end(job, kl=4.0 if job.name == "dpo-beta2-s1" else 3.0)
    assert hand.states() == ["COMPLETE"] * 2
    assert hand.trials.diverged() == {"dpo-beta2-s1": "KL 4 > 3"}
    assert [trial.user_attrs.get(DIVERGED) for trial in hand.study.trials] == [
        None, "dpo-beta2-s1: KL 4 > 3",
    ]  # fmt: skip


def test_a_logged_metric_outlives_the_weights(begin: Begin) -> None:
    logged = KL | {"metrics": {"val/loss": "minimize"}}
    hand = begin(logged)
    for loss in (1.0, 2.0):
        hand.end(hand.take(), metrics={"val/loss": loss})
    for job in hand.sweep.jobs(hand.sweep.points[0]):  # type: ignore[index]
        (hand.sweep.plan.folder(job) / DONE).unlink()
    again = begin(logged)
    assert again.take().name == "dpo-beta2-s0"
    assert again.study.trials[0].values == [1.5]
    # A folder of a time when nothing was kept: the run is made again.
    for job in hand.sweep.jobs(hand.sweep.points[0]):  # type: ignore[index]
        table_of(hand.sweep.plan.results, job.name).with_suffix(".json").unlink()
    assert begin(logged).take().name == "dpo-beta1-s0"


def test_what_another_configuration_logged_does_not_count(begin: Begin) -> None:
    logged = KL | {"metrics": {"val/loss": "minimize"}}
    hand = begin(logged)
    job = hand.take()
    hand.end(job, metrics={"val/loss": 1.0})
    (hand.sweep.plan.folder(job) / DONE).unlink()
    kept = table_of(hand.sweep.plan.results, job.name).with_suffix(".json")
    known = read_record(kept)
    assert known is not None
    write_record(kept, known | {"config_sha": "other", "metrics": {"val/loss": 1.0}})
    assert begin(logged).take().name == job.name


def test_a_run_whose_per_prompt_table_is_gone_is_given_to_a_worker_which_makes_the_table(
    begin: Begin,
) -> None:
    hand = begin(KL)
    job = hand.take()
    hand.end(job)
    assert begin(KL).take().name == "dpo-beta1-s1"
    table_of(hand.sweep.plan.results, job.name).unlink()
    assert begin(KL).take().name == job.name
