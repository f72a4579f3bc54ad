"""The list of stages is complete, and all of it can be called."""

import inspect
from pathlib import Path

import pytest
import yaml

from alignlab.names import find, recorded
from alignlab.stages.listing import ROOMS, stage_functions
from tests.test_cli import call

EXPERIMENTS = sorted(Path("experiments").rglob("*.yaml"))


def test_what_experiments_call_is_listed_and_what_is_listed_can_be_called() -> None:
    listed = dict(stage_functions())
    stages = [(yaml.safe_load(path.read_text()) or {}).get("stages") or {} for path in EXPERIMENTS]
    called = {entry["call"] for own in stages for entry in own.values() if "call" in (entry or {})}
    assert len(called) > 30
    assert called <= listed.keys()
    for name, what in listed.items():
        function = find(name)
        assert function.__module__ == name.rpartition(".")[0]
        assert inspect.signature(function).parameters["out"].default is inspect.Parameter.empty
        assert what[0].isupper() or what[0] in "`abcdefghijklmnopqrstuvwxyz"
        assert what.endswith((".", "?"))


def test_nothing_else_in_the_package_is_a_stage() -> None:
    """A function that a stage could call and that is in no list would be found by nobody."""
    for path in Path("alignlab").rglob("*.py"):
        if path.parent.name not in ROOMS:
            assert '"""Stage: ' not in path.read_text(), path


def test_the_command_prints_names_and_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("stages") == 0
    said = capsys.readouterr().out
    assert "  alignlab.stages.pairs.make_pairs " in said
    assert "Stage: " not in said
    assert recorded("alignlab.stages.pairs.make_pairs") == "alignlab.rollouts.pairs.make_pairs"
