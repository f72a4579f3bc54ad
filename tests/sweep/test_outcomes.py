"""How a trial ended, read from what its runs left."""

import pytest

from alignlab.files import DONE, read_record, write_record
from alignlab.plan import state
from alignlab.sweep.schema import StopKeys
from alignlab.sweep.spec import Sweep
from alignlab.sweep.study import DIVERGED
from tests.sweep.test_trial_queue import KL, Begin


def test_a_last_evaluation_beyond_the_bound_counts_as_diverged_too(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sweep, "_with_bound", lambda sweep, job: job)  # these train nothing
    hand = begin(stop=StopKeys(kl=3.0))
    while (job := hand.trials.next()) is not None:
        hand.end(job, kl=4.0 if job.name == "dpo-beta2-s1" else 3.0)
    assert hand.states() == ["COMPLETE"] * 2
    assert [trial.user_attrs.get(DIVERGED) for trial in hand.study.trials] == [
        None, "dpo-beta2-s1: KL 4 > 3",
    ]  # fmt: skip


def test_a_logged_metric_outlives_the_weights(begin: Begin) -> None:
    logged = KL | {"metrics": {"val/loss": "minimize"}}
    hand = begin(logged)
    for loss in (1.0, 2.0):
        hand.end(hand.take(), metrics={"val/loss": loss})
    for job in hand.sweep.jobs(hand.sweep.points[0]):  # type: ignore[index]
        (hand.plan.folder(job) / DONE).unlink()
    again = begin(logged)
    assert again.take().name == "dpo-beta2-s0"
    assert again.study.trials[0].values == [1.5]
    # A folder of a time when nothing was kept: the run is made again.
    for job in hand.sweep.jobs(hand.sweep.points[0]):  # type: ignore[index]
        state.prompt_table(hand.plan, job).with_suffix(".json").unlink()
    assert begin(logged).take().name == "dpo-beta1-s0"


def test_what_another_configuration_logged_does_not_count(begin: Begin) -> None:
    logged = KL | {"metrics": {"val/loss": "minimize"}}
    hand = begin(logged)
    job = hand.take()
    hand.end(job, metrics={"val/loss": 1.0})
    (hand.plan.folder(job) / DONE).unlink()
    kept = state.prompt_table(hand.plan, job).with_suffix(".json")
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
    state.prompt_table(hand.plan, job).unlink()
    assert begin(KL).take().name == job.name
