"""Stages become jobs with names, needs and hashes."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan.experiment import load_plan
from alignlab.plan.jobs import Job
from tests.plan.conftest import DPO, PIPELINE, SFT, changed, shas, write


def test_stages_become_jobs_named_for_grid_point_and_seed(experiment: Path) -> None:
    plan = load_plan(experiment)
    assert list(plan.jobs) == [
        "world",
        "sft",
        "dpo-beta0.1-s0",
        "dpo-beta0.1-s1",
        "dpo-beta0.5-s0",
        "dpo-beta0.5-s1",
    ]
    job = plan.jobs["dpo-beta0.5-s1"]
    assert (job.seed, job.hparams, job.objective) == (1, {"beta": 0.5}, "dpo")
    assert plan.folder(job) == Path("results/demo/stages/dpo/beta0.5-s1")
    assert [run.name for run in plan.runs] == list(plan.jobs)[2:]


def test_a_change_reaches_what_is_downstream_and_nothing_else(experiment: Path) -> None:
    before = load_plan(experiment)
    dpo = {f"dpo-beta{beta}-s{seed}" for beta in (0.1, 0.5) for seed in (0, 1)}
    write(experiment, dpo=DPO | {"trainer": {"max_steps": 3}})
    assert changed(before, load_plan(experiment)) == dpo
    write(experiment, dpo=DPO, sft=SFT | {"trainer": {"max_steps": 3}})
    assert changed(before, load_plan(experiment)) == dpo | {"sft"}


def test_every_grid_point_and_seed_has_its_own_hash(experiment: Path) -> None:
    plan = load_plan(experiment)
    assert len(set(shas(plan).values())) == len(plan.jobs)


def test_each_seed_reads_its_own_upstream_and_others_read_all(experiment: Path) -> None:
    stages = {
        "rm": {"call": "m.rm", "per_seed": True, "args": {"seed": "{seed}"}},
        "ppo": {"call": "m.ppo", "per_seed": True, "needs": ["rm"], "args": {"rm": "{rm}"}},
        "texts": {"call": "m.texts", "needs": ["ppo"], "args": {"policies": "{ppo}"}},
    }
    plan = load_plan(write(experiment, pipeline={"seeds": [0, 1], "stages": stages}))
    assert plan.resolved(plan.jobs["rm-s1"])["args"] == {"seed": 1}
    assert plan.resolved(plan.jobs["ppo-s1"])["args"] == {"rm": "results/demo/stages/rm/s1"}
    folders = ["results/demo/stages/ppo/s0", "results/demo/stages/ppo/s1"]
    assert plan.resolved(plan.jobs["texts"])["args"] == {"policies": folders}
    assert plan.jobs["texts"].needs == {"ppo": ("ppo-s0", "ppo-s1")}


def test_a_single_run_can_be_needed(experiment: Path) -> None:
    pool = {
        "call": "m.pool",
        "needs": ["sft", "dpo-beta0.1-s1"],
        "args": {"proposals": {"dpo": "{dpo-beta0.1-s1}"}},
    }
    content = PIPELINE | {"stages": PIPELINE["stages"] | {"pool": pool}}
    plan = load_plan(write(experiment, pipeline=content))
    folder = "results/demo/stages/dpo/beta0.1-s1"
    assert plan.resolved(plan.jobs["pool"])["args"] == {"proposals": {"dpo": folder}}
    assert plan.jobs["pool"].needs["dpo-beta0.1-s1"] == ("dpo-beta0.1-s1",)


def test_a_grid_can_be_a_list_of_points(experiment: Path) -> None:
    grid = [{"a.kl_coef": 0.1, "a.lr": 1e-4}, {"a.kl_coef": 0.2, "a.lr": 2e-5}]
    stages = {"ppo": {"call": "m.ppo", "grid": grid}}
    plan = load_plan(write(experiment, pipeline={"stages": stages}))
    assert list(plan.jobs) == ["ppo-kl_coef0.1-lr0.0001", "ppo-kl_coef0.2-lr2e-05"]
    assert plan.jobs["ppo-kl_coef0.2-lr2e-05"].spec["args"] == {"a": {"kl_coef": 0.2, "lr": 2e-5}}


def test_keys_that_end_alike_are_written_out(experiment: Path) -> None:
    stages = {"x": {"call": "m.x", "grid": {"a.lr": [1], "b.lr": [2]}}}
    plan = load_plan(write(experiment, pipeline={"stages": stages}))
    assert list(plan.jobs) == ["x-a_lr1-b_lr2"]


def test_a_job_without_grid_and_seed_is_named_for_its_stage() -> None:
    job = Job("sft", "all", None, {}, None, {}, {}, "")
    assert (job.name, job.folder) == ("sft", "stages/sft/all")


def test_runs_are_counted_before_they_are_listed(experiment: Path) -> None:
    axes = {f"a{i}": list(range(10)) for i in range(30)}
    write(experiment, pipeline={"stages": {"sft": {"call": "m.f", "grid": axes}}})
    with pytest.raises(ConfigError, match=r"stage 'sft': grid points: 1(,000){10} of them"):
        load_plan(experiment)
    stage = {"call": "m.f", "per_seed": True, "grid": {"a": list(range(40))}}
    write(experiment, pipeline={"stages": {"sft": stage}})
    assert len(load_plan(experiment, seeds=range(50)).jobs) == 2000
    with pytest.raises(ConfigError, match="stage 'sft': runs: 2,040 of them"):
        load_plan(experiment, seeds=range(51))


def test_a_probe_has_the_hash_of_the_first_callback(tmp_path: Path) -> None:
    """So rows of runs whose stage named it in trainer.callbacks are up to date."""
    more = {"class_path": "m.More"}
    arguments = {"samples": 4, "reward": {"class_path": "m.R"}}
    probe = {"class_path": "alignlab.callbacks.probe.FrontierProbe", "init_args": arguments}

    def sha(**config: Any) -> str:
        write(tmp_path / "demo", pipeline={"stages": {"a": {"fit": "a.yaml"}}}, a=config)
        return load_plan(tmp_path / "demo").jobs["a"].config_sha

    for callbacks in ([], [more]):
        first = sha(trainer={"max_steps": 1, "callbacks": [probe, *callbacks]})
        others = {"callbacks": callbacks} if callbacks else {}
        assert sha(trainer={"max_steps": 1, **others}, probe=arguments) == first
        assert sha(trainer={"max_steps": 1, **others}, probe=probe) == first
        assert sha(trainer={"max_steps": 1, **others}, probe=arguments | {"samples": 5}) != first
    assert sha(probe=arguments, trainer={"callbacks": more}) == sha(
        trainer={"callbacks": [probe, more]}
    )
    assert sha(probe=None, trainer={"max_steps": 1}) == sha(trainer={"max_steps": 1})
    assert sha(probe=arguments) == sha(trainer={"callbacks": [probe]})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"fit": "gone.yaml"}, "gone.yaml: no such file"),
        ({"call": "m.f", "needs": ["three"]}, "needs 'three', which is neither an earlier stage"),
        ({"call": "m.f", "needs": ["two"]}, "needs 'two', which is neither an earlier stage"),
        ({"call": "m.f", "needs": ["one-s3"]}, "nor a run of one. Stages before it: one"),
        ({"call": "m.f", "args": {"x": "{one}"}}, "{one}, which is not defined. Add 'one'"),
        ({"call": "m.f", "args": {"x": "{seed}"}}, "give it 'per_seed: true'"),
        ({"call": "m.f", "grid": {"a": ["x/y", "x_y"]}}, "would both be run 'two-ax_y'"),
        ({"call": "m.f", "grid": {"a": ["x" * 300]}}, "more than the 200 that fit"),
    ],
    ids=str,
)
def test_what_no_job_can_be_made_of(tmp_path: Path, entry: Any, said: str) -> None:
    stages = {"one": {"call": "m.one"}, "two": entry}
    folder = write(tmp_path / "demo", pipeline={"stages": stages})
    with pytest.raises(ConfigError) as caught:
        load_plan(folder)
    assert said in str(caught.value)
