"""Disk and memory against a plan that is computed by hand."""

from pathlib import Path

import pytest

from alignlab.doctor import machine
from alignlab.doctor.finding import findings
from alignlab.training.fit import Command
from tests.capacity.examples import PARAMETERS, stage

CHECKS = {"disk": machine.disk, "memory": machine.memory}
WEIGHTS = 4 * PARAMETERS  # float32
NEEDED = 3 * 3 * WEIGHTS + WEIGHTS  # three checkpoints of weights and two moments; the model


@pytest.fixture
def small(tmp_path: Path, words: Path) -> machine.Stage:
    args = [stage(tmp_path, policy={"tokenizer": str(words)})]
    args.append(f"--trainer.default_root_dir={tmp_path}/not/there/yet")
    return machine.Stage(args, Command(args).config)


@pytest.mark.parametrize(
    ("free", "state"), [(NEEDED - 1, "stop"), (NEEDED + 1, "warning"), (1.3 * NEEDED, "ok")]
)
def test_a_disk_must_hold_three_checkpoints_and_the_model(
    small: machine.Stage, free: float, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_disk", lambda folder: free)
    found = findings({"disk": machine.disk}, small)
    assert [each.state for each in found] == [state], found


def test_memory_that_is_too_small_is_a_stop(
    small: machine.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda gpu: 2.0 * WEIGHTS)
    found = findings({"memory": machine.memory}, small)
    assert [each.state for each in found] == ["stop"], found
    assert "alignlab plan CONFIG --memory" in found[0].advice
    monkeypatch.setattr(machine, "free_memory", lambda gpu: 1e12)
    assert [each.state for each in findings(CHECKS, small)] == ["ok", "ok"]


def test_this_machine_has_some(tmp_path: Path) -> None:
    assert machine.free_disk(tmp_path) > 0
    free = machine.free_memory(gpu=False)
    assert free is None or free > 0
