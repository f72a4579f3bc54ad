"""Scales and smoke overlays."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan.experiment import load_plan
from tests.plan.conftest import write


def test_a_scale_is_laid_over_and_smoke_over_that(experiment: Path) -> None:
    write(
        experiment,
        scales__small={
            "seeds": [7],
            "set": {"trainer.max_steps": 100},
            "stages": {
                "world": {"args": {"rows": 4, "more": True}},
                "dpo": {"set": {"trainer.max_steps": 50}, "grid": {"model.init_args.beta": [2]}},
            },
        },
        scales__smoke={"set": {"trainer.max_steps": 2}, "stages": {"sft": {"needs": []}}},
    )
    write(experiment, sft={"model": {"class_path": "m.SFT"}})
    small = load_plan(experiment, scale="small")
    assert small.results == Path("results/demo-small")
    assert list(small.jobs) == ["world", "sft", "dpo-beta2-s7"]
    assert small.jobs["world"].spec["args"] == {"rows": 4, "more": True}
    steps = {n: j.spec["config"]["trainer"] for n, j in small.jobs.items() if n != "world"}
    assert steps == {"sft": {"max_steps": 100}, "dpo-beta2-s7": {"max_steps": 50}}
    smoke = load_plan(experiment, scale="small", smoke=True)
    assert (smoke.name, smoke.results) == ("demo-small-smoke", Path("results/demo-small-smoke"))
    assert smoke.jobs["dpo-beta2-s7"].spec["config"]["trainer"] == {"max_steps": 2}
    assert smoke.jobs["sft"].needs == {}


def test_a_scale_can_drop_a_stage(experiment: Path) -> None:
    write(experiment, scales__bare={"stages": {"dpo": None}})
    assert list(load_plan(experiment, scale="bare").jobs) == ["world", "sft"]


def test_a_scale_can_bring_its_own_smoke(experiment: Path) -> None:
    write(
        experiment,
        scales__big={"stages": {"world": {"args": {"rows": 10**6}}}},
        scales__other={},
        scales__smoke={"stages": {"world": {"args": {"rows": 2}}}},
    )
    write(experiment / "scales", **{"big.smoke": {"stages": {"world": {"args": {"more": 1}}}}})
    args = {
        scale: load_plan(experiment, scale=scale, smoke=True).jobs["world"].spec["args"]
        for scale in ("big", "other")
    }
    assert args == {"big": {"rows": 2, "more": 1}, "other": {"rows": 2}}
    assert "more" not in load_plan(experiment, scale="big").jobs["world"].spec["args"]
    with pytest.raises(ConfigError, match=r"Known: big, other, smoke\."):
        load_plan(experiment, scale="huge")


def test_a_scale_can_make_a_stage_another_one(experiment: Path) -> None:
    write(
        experiment,
        scales__given={
            "stages": {
                "world": {"call": "m.other", "args": {"from": "x"}},
                "sft": {"call": "m.copy", "args": {"source": "{world}"}},
            }
        },
        scales__same={"stages": {"world": {"call": "m.world", "args": {"more": 1}}}},
    )
    given = load_plan(experiment, scale="given").jobs
    assert given["world"].spec == {"call": "m.other", "args": {"from": "x"}}
    assert given["sft"].spec == {"call": "m.copy", "args": {"source": "{world}"}}
    same = load_plan(experiment, scale="same").jobs
    assert same["world"].spec["args"] == {"rows": 8, "more": 1}


def test_an_unknown_scale_and_a_wrong_folder_are_told(experiment: Path, tmp_path: Path) -> None:
    write(experiment, scales__small={})
    with pytest.raises(ConfigError, match=r"no scale 'big'\. Known: small"):
        load_plan(experiment, scale="big")
    with pytest.raises(ConfigError, match=r"no pipeline.yaml there. Name an experiment folder"):
        load_plan(tmp_path)


@pytest.mark.parametrize("scale", ["", "../other", "a/b", "a.smoke", "smoke", "\0", "x y"])
def test_a_scale_is_a_name_and_no_path(experiment: Path, scale: str) -> None:
    write(experiment, other={"seeds": [3]}, scales__smoke={})
    with pytest.raises(ConfigError, match=r"scale"):
        load_plan(experiment, scale=scale)


@pytest.mark.parametrize("entry", [None, {"set": {"a": 1}}, {}])
def test_an_overlay_of_a_stage_that_is_not_there(experiment: Path, entry: Any) -> None:
    write(experiment, scales__small={"stages": {"dqo": entry}})
    with pytest.raises(
        ConfigError, match=r"small.yaml: stage 'dqo' is new and has neither 'fit' nor 'call'"
    ):
        load_plan(experiment, scale="small")


def test_the_frontiers_own_rows_are_no_objectives(experiment: Path) -> None:
    write(experiment, pipeline={"stages": {"one": {"call": "m.f", "objective": "oracle"}}})
    with pytest.raises(ConfigError, match="objective 'oracle' is a row of its own"):
        load_plan(experiment)


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("two", {"call": "m.f", "fit": "a.yaml"}, "stage 'two' needs exactly one of 'fit: st"),
        ("two", {"needs": ["one"]}, "'two' is new and has neither 'fit' nor 'call'. Add exactly"),
        ("two", None, "'two' is new and has neither 'fit' nor 'call'"),
        (
            "two",
            {"fit": "a.yaml", "args": {}},
            "'args' are for a call; a stage that trains takes 'set'",
        ),
        (
            "two",
            {"call": "m.f", "set": {"a": 1}},
            "'set' is for a stage that trains; a call takes 'args'",
        ),
        ("Bad-Name", {"call": "m.f"}, "lower-case letters"),
        ("out", {"call": "m.f"}, "lower-case letters"),
    ],
)
def test_a_stage_is_a_training_or_a_call(tmp_path: Path, name: str, entry: Any, said: str) -> None:
    folder = write(tmp_path / "demo", pipeline={"stages": {name: entry}})
    with pytest.raises(ConfigError) as caught:
        load_plan(folder)
    assert said in str(caught.value)
