import math
from typing import Any

import numpy as np
import pytest

from alignlab.bounds import LARGEST_SEED
from alignlab.errors import ConfigError
from alignlab.results.prompt_tables import PromptScores
from alignlab.sweep.spec import PROBED
from tests.sweep.conftest import BETA, RANGE, refused


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiment": ["demo"]}, "try.yaml: experiment must be a string, got ['demo']"),
        ({"experiment": 3}, "experiment must be a string, got 3"),
        ({"scale": 3}, "scale must be a string, got 3"),
        ({"seeds": []}, "try.yaml: seeds must have at least 1 item, got []"),
        ({"seeds": [0, 0]}, "seeds must hold each seed once, got [0, 0]"),
        ({"seeds": [-1]}, "seeds.0 must be greater than or equal to 0, got -1"),
        ({"seeds": [True]}, "seeds.0 must be a whole number, got True"),
        (
            {"seeds": [LARGEST_SEED + 1]},
            "seeds.0 must be less than or equal to 4294967295, got 4294967296",
        ),
        ({"arms": {3: {"stage": "dpo"}}}, "arms must have keys that are text in one line, got 3."),
        ({"arms": {"dpo": "yes"}}, "arms.dpo must be keys and their values, got 'yes'"),
        ({"space": ["beta"]}, "space must be keys and their values, got ['beta']"),
        ({"space": {3: [0.5]}}, "space must have keys that are text in one line, got 3."),
        (
            {"metrics": {"kl": ["minimize"]}},
            "metrics.kl must be 'maximize' or 'minimize', got ['minimize']",
        ),
        ({"trials": 2.5}, "trials must be a whole number, got 2.5"),
        ({"trials": True}, "trials must be a whole number, got True"),
        ({"minutes": math.nan}, ".nan is not a number, or too large"),
        ({"minutes": math.inf}, "minutes must be a finite number, got inf"),
        ({"minutes": "2h"}, "minutes must be a number, got '2h'"),
        ({"storage": 3}, "storage must be a string, got 3"),
        ({"storage": "foo"}, "storage 'foo' is of an unknown kind"),
        (
            {"metrics": {"rewrad": "maximize"}},
            "try.yaml: metric 'rewrad' is not measured by any run. An evaluation has kl, kl_k1, "
            "reward, proxy_reward, length, seconds; logged metrics have a slash, as val/loss does. "
            "Did you mean 'reward'?",
        ),
        (
            {"storage": "postgresql://u:p@h:port/db"},
            "'postgresql://***' is not the URL of a storage",
        ),
        ({"stop": 3}, "stop must be keys and their values, got 3"),
        ({"stop": {"kl": "abc"}}, "stop.kl must be a number, got 'abc'"),
        ({"stop": {"dominated": 1.5}}, "stop.dominated must be a whole number, got 1.5"),
    ],
    ids=str,
)
def test_keys_of_a_sweep_hold_what_they_may(load: Any, changes: Any, said: str) -> None:
    assert said in refused(load, changes)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"stage": ["dpo"]}, "arms.x.stage must be a string, got ['dpo']"),
        ({"stage": "pairs", "args": "hello"}, "arms.x.args must be keys and their values"),
        ({"stage": "dpo", "needs": 3}, "arms.x.needs must be a list, got 3"),
        ({"stage": "dpo", "needs": "sft"}, "arms.x.needs must be a list, got 'sft'"),
        ({"stage": "dpo", "objective": 3}, "arms.x.objective must be a string, got 3"),
        ({"stage": "dpo", "space": ["b"]}, "arms.x.space must be keys and their values"),
        ({"stage": "dpo", "set": "hello"}, "arms.x.set must be keys and their values"),
        (
            {"stage": "pairs", "set": {"a": 1}},
            "stage 'x': 'set' is for a stage that trains; a call takes",
        ),
        ({"fit": 3}, "arms.x.fit must be a string or a list, got 3"),
        ({"fit": None}, "arms.x.fit must be a string or a list, got None"),
        ({"call": 3}, "arms.x.call must be a string, got 3"),
    ],
    ids=str,
)
def test_keys_of_an_arm_hold_what_they_may(load: Any, arm: Any, said: str) -> None:
    assert said in refused(load, {"arms": {"x": arm}})


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (["grid"], "sampler must be one of grid, random, qmc, tpe, nsgaii, gp, alone or with"),
        (3, "sampler must be one of grid, random, qmc, tpe, nsgaii, gp, alone or with"),
        (
            {"grid": {}, "tpe": {}},
            "sampler must be one of grid, random, qmc, tpe, nsgaii, gp, alone or with",
        ),
        ({"grid": {"seed": 1}}, "unknown key sampler.grid.seed. Known: none."),
        ({"tpe": {"seed": "abc"}}, "sampler.tpe.seed must be a whole number, got 'abc'"),
        ({"tpe": {"seed": None}}, "sampler.tpe.seed must be a whole number, got None"),
        (
            {"random": {"seed": -5}},
            "sampler.random.seed must be greater than or equal to 0, got -5",
        ),
        (
            {"tpe": {"n_startup_trials": "abc"}},
            "n_startup_trials must be a whole number, got 'a",
        ),
        ({"tpe": {"gamma": "abc"}}, "unknown key sampler.tpe.gamma. Known: consider_endpoints"),
        ({"qmc": {"qmc_type": "foo"}}, "sampler: The `qmc_type='foo'` is invalid"),
        ({"nsgaii": {"population_size": 0}}, "sampler: `population_size` must be"),
        (
            {"nsgaii": {"mutation_prob": "x"}},
            "sampler.nsgaii.mutation_prob must be a number, got 'x'",
        ),
    ],
    ids=str,
)
def test_samplers_are_built_when_the_file_is_read(load: Any, sampler: Any, said: str) -> None:
    assert said in refused(load, {"sampler": sampler, "trials": 2, "space": RANGE})


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        ("medain", "pruner must be one of median, percentile"),
        ({"median": {"warm": 3}}, "unknown key pruner.median.warm. Known: interval_steps"),
        (
            {"median": {"n_startup_trials": "a"}},
            "n_startup_trials must be a whole number, got 'a",
        ),
        ({"median": {"n_startup_trials": -1}}, "pruner: Number of startup trials cannot be"),
        ("percentile", "pruner.percentile.percentile is missing. Add it"),
        ({"percentile": {"percentile": 200}}, "pruner: Percentile must be between 0"),
        ("threshold", "pruner: Either lower or upper must be specified"),
        ("patient", "pruner.patient.patience is missing. Add it"),
        (
            {"patient": {"patience": 2, "wrapped_pruner": "median"}},
            "unknown key pruner.patient.wrapped_pruner",
        ),
    ],
    ids=str,
)
def test_pruners_are_built_when_the_file_is_read(load: Any, pruner: Any, said: str) -> None:
    assert said in refused(load, ONE | {"pruner": pruner})


def test_every_pruner_can_be_had_from_yaml(load: Any) -> None:
    for pruner in (
        "median", {"percentile": {"percentile": 25}}, "successive_halving", "hyperband",
        {"threshold": {"upper": 20.0}}, {"patient": {"patience": 2}},
    ):  # fmt: skip
        assert load(**ONE, pruner=pruner).keys.pruner is not None


def test_a_pruner_goes_by_what_evaluations_report(load: Any) -> None:
    line = refused(load, {"metrics": {"val/loss": "minimize"}, "pruner": "median"})
    assert (
        "each evaluation reports, got 'val/loss'. Take one of kl, kl_k1, reward, proxy_reward"
        in line
    )
    assert load(metrics={"val/loss": "minimize"}).keys.metrics == {"val/loss": "minimize"}


def test_what_evaluations_report() -> None:
    one = np.ones(2)
    scores = PromptScores(
        prompt_ids=("a", "b"), kl=one, kl_k1=one, reward=one, proxy_reward=one, length=one,
        n_samples=np.ones(2, dtype=np.int64),
    )  # fmt: skip
    assert {*scores.means(), "seconds"} == set(PROBED)


@pytest.mark.parametrize(
    ("frontier", "said"),
    [
        (
            {"reward_lable": "gold"},
            "try.yaml: unknown key frontier.reward_lable, did you mean reward_label?",
        ),
        ({"reward_label": 3}, "try.yaml: frontier.reward_label must be a string, got 3"),
        (["a"], "try.yaml: frontier must be keys and their values, got ['a']"),
    ],
    ids=str,
)
def test_the_closing_evaluation_takes_what_it_is_given(load: Any, frontier: Any, said: str) -> None:
    assert said in refused(load, {"frontier": frontier})
    assert load(frontier={"reward_label": "x"}).plan.frontier == {"reward_label": "x"}
