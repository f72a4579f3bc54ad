"""The plan of an experiment as a whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan.experiment import load_plan
from tests.plan.conftest import DPO, PIPELINE, shas, write


def test_the_config_of_a_run_is_filled_in(experiment: Path) -> None:
    plan = load_plan(experiment, results=Path("out"))
    assert plan.resolved(plan.jobs["dpo-beta0.5-s1"]) == {
        "config": {
            "model": {
                "class_path": "m.DPO",
                "init_args": {"policy": "out/stages/sft/all", "beta": 0.5},
            },
            "seed_everything": 1,
        }
    }
    assert plan.resolved(plan.jobs["sft"])["config"]["seed_everything"] == 0
    assert plan.resolved(plan.jobs["world"]) == {"call": "m.world", "args": {"rows": 8}}


def test_a_sweeps_runs_share_their_experiments_inputs_and_caches(experiment: Path) -> None:
    write(experiment, dpo=DPO | {"cache": "{results}/stages/cache", "own": "{out}"})
    plan = load_plan(experiment, results=Path("out"))
    sweep = replace(plan, results=Path("sweep"), inputs=plan.results)
    config = sweep.resolved(sweep.jobs["dpo-beta0.5-s1"])["config"]
    assert config["model"]["init_args"]["policy"] == "out/stages/sft/all"
    assert config["cache"] == "out/stages/cache"
    assert config["own"] == "sweep/stages/dpo/beta0.5-s1"


def test_hashes_do_not_depend_on_where_results_lie(experiment: Path) -> None:
    assert shas(load_plan(experiment)) == shas(load_plan(experiment, results=Path("/elsewhere")))


@pytest.mark.parametrize("seeds", [[0, 0], [-1], [], [2**32]])
def test_seeds_of_the_call_are_checked_too(experiment: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"^--seeds: seeds(\.0)? must .*, got "):
        load_plan(experiment, seeds=seeds)


def test_seeds_of_the_call_win(experiment: Path) -> None:
    plan = load_plan(experiment, seeds=[5])
    assert [job.seed for job in plan.runs] == [5, 5]


def test_a_run_that_is_needed_by_name_is_there_whatever_seeds_are_asked_for(
    experiment: Path,
) -> None:
    seeded = {"call": "m.rm", "per_seed": True, "args": {"seed": "{seed}"}}
    stages = {
        "rm": seeded,
        "pool": {"call": "m.pool", "needs": ["rm-s0"], "args": {"proxy": "{rm-s0}"}},
        "ppo": {**seeded, "objective": "ppo", "needs": ["rm"]},
        "texts": {"call": "m.texts", "needs": ["ppo"], "args": {"policies": "{ppo}"}},
    }
    write(experiment, pipeline={"seeds": [0, 1], "stages": stages})
    plan = load_plan(experiment, seeds=[4])
    assert [job.name for job in plan.asked] == ["rm-s4", "pool", "ppo-s4", "texts"]
    assert [job.name for job in plan.runs] == ["ppo-s4"]
    assert plan.jobs["texts"].needs == {"ppo": ("ppo-s4",)}
    assert plan.jobs["pool"].needs == {"rm-s0": ("rm-s0",)}
    assert plan.jobs["pool"].config_sha == load_plan(experiment).jobs["pool"].config_sha


def test_the_frontier_names_what_it_reads(experiment: Path) -> None:
    content = PIPELINE | {"frontier": {"needs": ["world"], "args": {"reward_label": "gold"}}}
    plan = load_plan(write(experiment, pipeline=content))
    assert (plan.frontier, plan.frontier_needs) == ({"reward_label": "gold"}, ("world",))


def test_what_no_stage_uses_is_noted(experiment: Path) -> None:
    assert load_plan(experiment).notes == ()
    one: dict[str, Any] = {"call": "m.f"}
    write(experiment, pipeline={"stages": {"one": one}})
    assert load_plan(experiment).notes == ()
    assert load_plan(experiment, seeds=[1]).notes == (
        "'seeds' changes nothing: no stage has 'per_seed: true'",
    )
    given = {"seeds": [0], "set": {"a": 1}, "frontier": {"needs": ["one"]}, "stages": {"one": one}}
    write(experiment, pipeline=given)
    assert [note.split(" ")[0] for note in load_plan(experiment).notes] == [
        "'seeds'", "'set'", "'frontier'"
    ]  # fmt: skip
    stages = {"one": {**one, "per_seed": True}, "two": {**one, "per_seed": True, "needs": ["one"]}}
    write(experiment, pipeline={"seeds": [0, 1], "stages": stages})
    assert load_plan(experiment).notes == ("stage 'one' runs once for each seed, and uses none",)


def test_the_results_are_named_by_their_stage_and_not_by_their_path(experiment: Path) -> None:
    stages = {"two": {"call": "m.f", "args": {"files": ["results/demo/stages/one/all/x.csv"]}}}
    write(experiment, pipeline={"stages": stages})
    with pytest.raises(ConfigError, match=r"stage 'two': results/demo/stages.* own results"):
        load_plan(experiment)
    assert load_plan(experiment, results=Path("elsewhere")).jobs


def test_the_frontier_needs_what_there_is(experiment: Path) -> None:
    write(experiment, pipeline={"stages": {}, "frontier": {"needs": ["x"]}})
    with pytest.raises(ConfigError, match="stage 'frontier' needs 'x'"):
        load_plan(experiment)


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
