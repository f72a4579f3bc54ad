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
