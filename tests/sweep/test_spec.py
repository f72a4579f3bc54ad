from typing import Any

import pytest

from alignlab.errors import ConfigError
from tests.sweep.conftest import BETA, refused


def test_a_trial_is_the_arms_stage_with_the_points_values_for_each_seed(load: Any) -> None:
    sweep = load()
    jobs = sweep.jobs(sweep.points[1])
    assert [job.name for job in jobs] == ["dpo-beta1-s0", "dpo-beta1-s1"]
    assert jobs[1].needs == {"sft": ("sft",), "pairs": ("pairs-s1",)}
    assert jobs[1].spec["config"]["model"]["init_args"]["beta"] == 1.0
    assert jobs[1].spec["config"]["seed_everything"] == 1
    # The experiment's own grid point is an input, for the pool is made from it.
    assert sweep.needs == ["sft", "pairs-s0", "pairs-s1", "pool"]
    assert "dpo-beta7-s0" in sweep.plan.jobs


def test_arms_may_share_a_stage_and_have_dimensions_of_their_own(load: Any) -> None:
    soft = {
        "stage": "dpo",
        "set": {"model.init_args.soft": 0.1},
        "space": {"trainer.max_steps": [5]},
    }
    sweep = load(arms={"dpo": {}, "soft": soft})
    assert [(p.arm, *p.values.values()) for p in sweep.points] == [
        ("dpo", 0.5), ("dpo", 1.0), ("soft", 0.5, 5), ("soft", 1.0, 5),
    ]  # fmt: skip
    job = sweep.jobs(sweep.points[2])[0]
    assert (job.name, job.objective) == ("soft-beta0.5-max_steps5-s0", "soft")
    assert job.spec["config"]["model"]["init_args"]["soft"] == 0.1
    assert sweep.space.params(sweep.points[2]) == {
        "arm": "soft", "model.init_args.beta": 0.5, "soft/trainer.max_steps": 5,
    }  # fmt: skip


def test_a_kl_bound_stands_behind_the_probe_and_counts_as_part_of_the_run(load: Any) -> None:
    free, bound = load(), load(stop={"kl": 20})
    job = bound.jobs(bound.points[0])[0]
    assert [c["class_path"] for c in job.spec["config"]["trainer"]["callbacks"]] == [
        "m.Probe", "alignlab.callbacks.kl_bound.KLBound",
    ]  # fmt: skip
    assert job.config_sha != free.jobs(free.points[0])[0].config_sha


ONE = {"metrics": {"reward": "maximize"}}
CALL = {"arms": {"sft": {"objective": "sft"}}, "space": {"x": [1]}}


@pytest.mark.parametrize(
    "changes",
    [
        {"space": {"model.init_args.beta": [0.5, 2.0]}},
        {"seeds": [0]},
        {"metrics": {"reward": "maximize"}},
        {"arms": {"dpo": {"set": {"trainer.max_steps": 3}}}},
        {"stop": {"kl": 9.0}},
    ],
    ids=str,
)
def test_what_makes_trials_incomparable_changes_the_definition(load: Any, changes: Any) -> None:
    assert load(**changes).definition != load().definition


def test_what_does_not_leaves_it(load: Any) -> None:
    tpe = {"sampler": "tpe", "space": {"model.init_args.beta": {"float": [0.1, 1.0]}}}
    assert load(**tpe, trials=3).definition == load(**tpe, trials=9, minutes=5).definition
    assert load(storage="journal:///x").definition == load().definition


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": {}}, "unknown key metric, did you mean metrics? Known: arms"),
        ({"metrics": None}, "metrics is missing. Add it."),
        ({"metrics": {"kl": "down"}}, "metrics.kl must be 'maximize' or 'minimize', got 'down'"),
        ({"arms": {"ppo": {}}}, "arm 'ppo': the experiment has no stage 'ppo'. Stages: sft, pairs"),
        ({"arms": {"dpo": {"betta": 1}}}, "unknown key arms.dpo.betta"),
        ({"arms": ["dpo"]}, "arms must be keys and their values, got ['dpo']"),
        ({"sampler": "bayes"}, "must be one of grid, random, qmc, tpe, nsgaii, gp"),
        (
            {"sampler": {"tpe": {"startup": 3}}},
            "unknown key sampler.tpe.startup, did you mean n_startup_trials? Known: ",
        ),
        ({"sampler": "tpe"}, "sampler tpe needs 'trials'"),
        ({"sampler": "random", "minutes": 3}, "sampler random needs 'trials'"),
        ({"pruner": "median"}, "this sweep has 2. Use 'stop'"),
        ({"process_per_trial": 1}, "process_per_trial must be true or false, got 1"),
        ({"trials": 0}, "trials must be greater than 0, got 0"),
        ({"seeds": "0"}, "seeds must be a list, got '0'"),
        ({"stop": {"reward": 1}}, "unknown key stop.reward. Known: dominated, kl."),
        ({"space": {BETA: {"float": [0.1, 1.0]}}}, "a grid needs choices, an int or a step"),
        (
            {"space": {BETA: 3}},
            "space.model.init_args.beta must be exactly one of a list of choices",
        ),
        (
            {"space": {BETA: {"float": [1.0, 0.1]}}},
            "space.model.init_args.beta must go from its low to",
        ),
        ({"space": {BETA: {"int": [1, 2.5]}}}, "beta.int.1 must be a whole number, got 2.5"),
        ({"space": {BETA: [[1]]}}, "beta.0 must be true or false or a number or a string, got [1]"),
        ({"space": {BETA: [1.0, 1.0]}}, "beta must hold each choice once, got [1.0, 1.0]"),
        (
            {"space": {BETA: {"choices": [1], "float": [1, 2]}}},
            "exactly one of a list of choices, {float: [l",
        ),
    ],
    ids=str,
)
def test_wrong_sweeps_say_what_is_wrong(load: Any, changes: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"model.init_args.policy": ["{sft}", "{sft}/"]}}, "'dpo-policy_sft_'"),
        ({"space": {BETA: ["1", 1]}}, "both be run 'dpo-beta1'. Leave one out"),
        ({"space": {BETA: ["a/b", "a_b"]}, "sampler": "tpe", "trials": 2}, "run 'dpo-betaa_b'"),
        ({"space": {BETA: ["1", 1]}, "sampler": "tpe", "trials": 2}, "both be run 'dpo-beta1'"),
        ({"space": {"a": ["1", "1-b2"], "b": ["2-b2", "2"]}}, "run 'dpo-a1-b2-b2'"),
        ({"space": {BETA: ["x" * 300]}}, "a name of 308 characters, more than the 200"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_points_that_would_share_a_folder(load: Any, changes: Any, said: str) -> None:
    line = refused(load, changes)
    assert line.startswith("try.yaml: arm 'dpo': ")
    assert said in line


@pytest.mark.parametrize("key", [{"stop": {"kl": 3}}, {"stop": {"dominated": 2}},
                                 ONE | {"pruner": "median"}], ids=str)  # fmt: skip
def test_only_a_training_ends_early(load: Any, key: dict[str, Any]) -> None:
    name = list(key)[-1]
    assert f"arm 'sft': '{name}' is for stages that train; this is a call" in refused(
        load, CALL | key
    )
