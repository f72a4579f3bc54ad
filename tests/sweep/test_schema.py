"""Keys of a sweep's file, and samplers and pruners with their settings."""

import math
from typing import Any

import numpy as np
import pytest

from alignlab.bounds import LARGEST_SEED
from alignlab.results.prompt_tables import PromptScores
from alignlab.sweep.schema import PROBED
from tests.sweep.conftest import RANGE, refused

ONE = {"metrics": {"reward": "maximize"}}


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
        ({"minutes": math.nan}, ".nan is no number that can be kept"),
        ({"minutes": math.inf}, "minutes must be a finite number, got inf"),
        ({"minutes": "2h"}, "minutes must be a number, got '2h'"),
        ({"storage": 3}, "storage must be a string, got 3"),
        ({"storage": "foo"}, "storage 'foo' is of an unknown kind"),
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
        assert load(**ONE, pruner=pruner).pruner is not None


def test_a_pruner_goes_by_what_evaluations_report(load: Any) -> None:
    line = refused(load, {"metrics": {"val/loss": "minimize"}, "pruner": "median"})
    assert "which 'val/loss' is not part of. Take one of kl, kl_k1, reward, proxy_reward" in line
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
    assert load(frontier={"reward_label": "x"}).frontier == {"reward_label": "x"}
