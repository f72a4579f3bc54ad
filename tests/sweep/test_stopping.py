"""Sweeps of real, tiny runs that are ended early: by their KL, by a pruner, by better ones."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from alignlab.models.policy import Policy
from alignlab.results.tables import read_points
from alignlab.sweep import run_sweep
from tests.sweep.test_run import RESULTS, rows, study
from tests.sweep.training import EVERY, LR, STEPS, STILL, WILD, write_stage

WHOLE = list(range(EVERY, STEPS + 1, EVERY))
Sweep = Callable[..., Path]


@pytest.fixture
def sweep(write: Sweep, tmp_path: Path, build: Callable[..., Policy]) -> Sweep:
    """Writes a sweep over the learning rate of a run, a still one and a wild one."""
    stage = write_stage(tmp_path, build(dtype="float32"))

    def to_file(**keys: Any) -> Path:
        given = {"arms": {"small": {}}, "space": {LR: [STILL, WILD]}, "seeds": [0]}
        return write(more={"small": stage}, **(given | keys))

    return to_file


def steps() -> dict[str, list[int]]:
    """Run -> the steps of its evaluations."""
    found: dict[str, list[int]] = {}
    for point in read_points(RESULTS / "points.csv"):
        found.setdefault(point.run_id, []).append(point.step)
    return found


def cut_behind(step: int, found: list[int]) -> bool:
    """Whether a run was told at ``step`` and ended as soon as it heard of it, evaluated once more.

    It takes a moment to hear; how long is no business of a test.
    """
    return step in found and found[-1] < STEPS


def forget() -> None:
    """Leave the tables alone: neither weights nor the study."""
    shutil.rmtree(RESULTS / "stages")
    (RESULTS / "study.db").unlink()


def test_a_run_beyond_its_kl_has_diverged_and_what_it_logged_outlives_it(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(stop={"kl": 0.1}, metrics={"kl": "minimize", "train/loss": "minimize"})
    assert run_sweep(path, workers=1) == 0
    assert "trials: 1 complete, 1 diverged" in capsys.readouterr().err
    assert steps() == {"small-lr1e-09-s0": WHOLE, "small-lr0.1-s0": [EVERY]}
    still, wild = found = rows()
    assert (still["state"], still["note"], wild["state"]) == ("complete", "", "diverged")
    assert wild["note"].startswith("small-lr0.1-s0: KL ")
    assert wild["note"].endswith(" > 0.1 at step 2")
    assert float(wild["kl"]) > 0.1
    assert float(wild["train/loss"]) > 0
    # Its values are in the study: a sampler is to learn where not to go.
    assert [t.state for t in study().trials] == [TrialState.COMPLETE] * 2
    forget()
    assert run_sweep(path, workers=1) == 0
    assert rows() == found
    assert not list(RESULTS.glob("stages/small/*"))  # nothing was trained again


@pytest.mark.slow
def test_a_pruned_trial_has_one_run_and_stays_pruned(sweep: Sweep) -> None:
    keys = {"metrics": {"kl": "minimize"}, "seeds": [0, 1]}
    path = sweep(pruner={"threshold": {"upper": 0.1}}, **keys)
    assert run_sweep(path, workers=1) == 0
    found = steps()
    assert list(found) == ["small-lr0.1-s0", "small-lr1e-09-s0", "small-lr1e-09-s1"]
    assert found["small-lr1e-09-s1"] == WHOLE
    assert cut_behind(EVERY, found["small-lr0.1-s0"])
    assert [t.state for t in study().trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert (rows()[1]["state"], rows()[1]["kl"]) == ("pruned", "")
    assert rows()[1]["note"] == "small-lr0.1-s0: pruned at step 2"
    forget()  # as a changed sweep would find it, whose study is another
    assert run_sweep(path, workers=1) == 0
    assert steps() == found
    assert [row["state"] for row in rows()] == ["complete", "pruned"]


def test_a_run_that_others_beat_twice_in_a_row_is_stopped(sweep: Sweep) -> None:
    assert run_sweep(sweep(stop={"dominated": 2}), workers=1) == 0
    found = steps()
    assert found["small-lr1e-09-s0"] == WHOLE  # nobody to be beaten by
    assert cut_behind(2 * EVERY, found["small-lr0.1-s0"])
    still, wild = rows()
    assert (still["state"], wild["state"]) == ("complete", "stopped")
    why = "other runs had more reward at less KL, up to step 4"
    assert wild["note"] == f"small-lr0.1-s0: {why}"
    assert float(wild["reward"]) < float(still["reward"])
