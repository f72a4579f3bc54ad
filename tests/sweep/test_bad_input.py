"""What cannot be meant is refused in one line, before anything is made."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignlab.bounds import LARGEST_SEED
from alignlab.errors import ConfigError, DataError
from alignlab.evaluation.points import PointEstimate
from alignlab.pipeline.jobs import check
from alignlab.pipeline.lock import results_lock
from alignlab.results.prompt_tables import PromptScores
from alignlab.results.tables import read_points
from alignlab.sweep import run_sweep
from alignlab.sweep.spec import PROBED, load_sweep
from tests.sweep.test_run import RESULTS, Write
from tests.sweep.test_spec import BETA

CALL = {"arms": {"sft": {"objective": "sft"}}, "space": {"x": [1]}}
ONE = {"metrics": {"reward": "maximize"}}
RANGE = {BETA: {"float": [0.1, 1.0]}}


def refused(load: Any, changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experiment": ["demo"]}, "try.yaml: experiment must be a word, got ['demo']"),
        ({"experiment": 3}, "experiment must be a word, got 3"),
        ({"scale": 3}, "scale must be a word, got 3"),
        ({"seeds": []}, "try.yaml: seeds must be a list of whole numbers >= 0, each once, got []"),
        ({"seeds": [0, 0]}, "each once, got [0, 0]"),
        ({"seeds": [-1]}, "each once, got [-1]"),
        ({"seeds": [True]}, "each once, got [True]"),
        ({"seeds": [LARGEST_SEED + 1]}, "each once, got [4294967296]"),
        ({"arms": {3: {"stage": "dpo"}}}, "arms must be names and their values, got {3:"),
        ({"arms": {"dpo": "yes"}}, "arm 'dpo': expected keys and values, got 'yes'"),
        ({"space": ["beta"]}, "space must be names and their values, got ['beta']"),
        ({"space": {3: [0.5]}}, "space must be names and their values, got {3: [0.5]}"),
        ({"metrics": {"kl": ["minimize"]}}, "metrics must be names with maximize or minimize"),
        ({"trials": 2.5}, "trials must be a whole number > 0, got 2.5"),
        ({"trials": True}, "trials must be a whole number > 0, got True"),
        ({"minutes": math.nan}, ".nan is no number that can be kept"),
        ({"minutes": math.inf}, "minutes must be a number > 0, got inf"),
        ({"minutes": "2h"}, "minutes must be a number > 0, got '2h'"),
        ({"storage": 3}, "storage must be a word, got 3"),
        ({"storage": "foo"}, "storage 'foo' is of no known kind"),
        ({"storage": "postgresql://u:p@h:port/db"}, "'postgresql://***' is no URL of a storage"),
        ({"stop": 3}, "stop must be names and their values, got 3"),
        ({"stop": {"kl": "abc"}}, "stop: kl must be a number > 0, got 'abc'"),
        ({"stop": {"dominated": 1.5}}, "stop: dominated must be a whole number > 0, got 1.5"),
    ],
    ids=str,
)
def test_keys_of_a_sweep_hold_what_they_may(load: Any, changes: Any, said: str) -> None:
    assert said in refused(load, changes)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"stage": ["dpo"]}, "arm 'x': stage must be a word, got ['dpo']"),
        ({"stage": "pairs", "args": "hello"}, "arm 'x': args must be names and their values"),
        ({"stage": "dpo", "needs": 3}, "arm 'x': needs must be a list of words, got 3"),
        ({"stage": "dpo", "needs": "sft"}, "arm 'x': needs must be a list of words, got 'sft'"),
        ({"stage": "dpo", "objective": 3}, "arm 'x': objective must be a word, got 3"),
        ({"stage": "dpo", "space": ["b"]}, "arm 'x': space must be names and their values"),
        ({"stage": "dpo", "set": "hello"}, "arm 'x': set must be names and their values"),
        (
            {"stage": "pairs", "set": {"a": 1}},
            "arm 'x': 'set' is for a stage that trains; a call takes",
        ),
        ({"fit": 3}, "arm 'x': fit must be a YAML file or a list of them, got 3"),
        ({"fit": None}, "arm 'x': fit must be a YAML file or a list of them, got None"),
        ({"call": 3}, "arm 'x': call must be a function's dotted name, got 3"),
    ],
    ids=str,
)
def test_keys_of_an_arm_hold_what_they_may(load: Any, arm: Any, said: str) -> None:
    assert said in refused(load, {"arms": {"x": arm}})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"float": [0.1, 1.0], "step": 5}, "a whole number of steps must lead from low to high"),
        ({"float": [0.1, 1.0], "step": 0.4}, "a whole number of steps must lead from low to high"),
        ({"float": [0.1, 1.0], "step": -0.1}, "step must be a number > 0, got -0.1"),
        ({"int": [1, 4], "step": 0}, "step must be a number > 0, got 0"),
        ({"int": [1, 4], "step": True}, "step must be a number > 0, got True"),
        ({"int": [1, 4], "step": 0.5}, "the step of an int range is a whole number"),
        ({"int": [1, 4], "step": 2}, "a whole number of steps must lead from low to high"),
        ({"float": [0.1, 1.0], "log": "false"}, "log must be true or false, got 'false'"),
        ({"float": [0.1, math.inf]}, "float must be [low, high], two numbers, got [0.1, inf]"),
        ({"float": [True, 2]}, "float must be [low, high], two numbers, got [True, 2]"),
        ({"float": [1]}, "float must be [low, high], two numbers, got [1]"),
        ({"float": 3}, "float must be [low, high], two numbers, got 3"),
        ({"float": [1.0, 0.1]}, "a range goes from its low to its high end"),
        ([math.inf], "choices must be a list of at least one number, word, switch or null"),
        ([], "choices must be a list of at least one number, word, switch or null"),
        ([1, 1.0], "a choice is given twice"),
        ({"choices": [1], "log": True}, "choices have nothing beside them"),
    ],
    ids=str,
)
def test_a_dimension_is_taken_as_it_is_written_or_not_at_all(
    load: Any, entry: Any, said: str
) -> None:
    line = refused(load, {"space": {BETA: entry}})
    assert line.startswith(f"space.{BETA}: ")
    assert said in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {f"a{i}": list(range(10)) for i in range(39)}}, "points: 1" + ",000" * 13),
        ({"space": {BETA: {"int": [0, 10**12]}}}, "points: 1,000,000,000,001 of them"),
        ({"space": {BETA: {"float": [0.0, 1.0], "step": 1e-9}}}, "points: 1,000,000,001 of them"),
        ({"space": RANGE, "sampler": "random", "trials": 10**9}, "trials: 1,000,000,000 of them"),
        ({"space": {BETA: list(range(1001))}}, "choices: 1,001 of them, more than the 1,000"),
        ({"sampler": {"tpe": {"n_ei_candidates": 10**9}}, "trials": 1}, "of at most a million"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_too_much_is_counted_and_not_listed(load: Any, changes: Any, said: str) -> None:
    assert said in refused(load, changes)


def test_a_small_space_is_drawn_and_no_longer_asked(load: Any) -> None:
    drawn = load(space={BETA: {"int": [1, 3]}}, sampler="random", trials=10_000).points
    assert sorted(point.values[BETA] for point in drawn) == [1, 2, 3]


def test_a_switch_is_no_number(load: Any) -> None:
    assert len(load(space={BETA: [1, True, 0, False]}).points) == 4


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


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (["grid"], "sampler: expected one of grid"),
        (3, "sampler: expected one of grid"),
        ({"grid": {}, "tpe": {}}, "sampler: expected one of grid"),
        ({"grid": {"seed": 1}}, "sampler grid: unknown key seed"),
        ({"tpe": {"seed": "abc"}}, "sampler tpe: seed must be a whole number >= 0, got 'abc'"),
        ({"tpe": {"seed": None}}, "sampler tpe: seed must be a whole number >= 0, got None"),
        ({"random": {"seed": -5}}, "sampler random: seed must be a whole number >= 0, got -5"),
        (
            {"tpe": {"n_startup_trials": "abc"}},
            "n_startup_trials must be a whole number of at most",
        ),
        ({"tpe": {"gamma": "abc"}}, "sampler tpe: unknown key gamma"),
        ({"qmc": {"qmc_type": "foo"}}, "sampler qmc: The `qmc_type='foo'` is invalid"),
        ({"nsgaii": {"population_size": 0}}, "sampler nsgaii: `population_size` must be"),
        ({"nsgaii": {"mutation_prob": "x"}}, "mutation_prob must be a number or null, got 'x'"),
    ],
    ids=str,
)
def test_samplers_are_built_when_the_file_is_read(load: Any, sampler: Any, said: str) -> None:
    assert said in refused(load, {"sampler": sampler, "trials": 2, "space": RANGE})


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        ("medain", "pruner: expected one of median"),
        ({"median": {"warm": 3}}, "pruner median: unknown key warm"),
        (
            {"median": {"n_startup_trials": "a"}},
            "n_startup_trials must be a whole number of at most",
        ),
        ({"median": {"n_startup_trials": -1}}, "pruner median: Number of startup trials cannot be"),
        ("percentile", "pruner percentile: 'percentile' is missing. Add it"),
        ({"percentile": {"percentile": 200}}, "pruner percentile: Percentile must be between 0"),
        ("threshold", "pruner threshold: Either lower or upper must be specified"),
        ("patient", "pruner patient: 'patience' is missing. Add it"),
        ({"patient": {"patience": 2, "wrapped_pruner": "median"}}, "unknown key wrapped_pruner"),
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
    assert load(metrics={"val/loss": "minimize"}).metrics == {"val/loss": "minimize"}


def test_what_evaluations_report() -> None:
    from alignlab.callbacks.probe import _means

    one = np.ones(2)
    scores = PromptScores(
        prompt_ids=("a", "b"), kl=one, kl_k1=one, reward=one, proxy_reward=one, length=one,
        n_samples=np.ones(2, dtype=np.int64),
    )  # fmt: skip
    assert {*_means(PointEstimate(scores, [])), "seconds"} == set(PROBED)


@pytest.mark.parametrize("key", [{"stop": {"kl": 3}}, {"stop": {"dominated": 2}},
                                 ONE | {"pruner": "median"}], ids=str)  # fmt: skip
def test_only_a_training_ends_early(load: Any, key: dict[str, Any]) -> None:
    name = list(key)[-1]
    assert f"arm 'sft': '{name}' is for stages that train; this is a call" in refused(
        load, CALL | key
    )


@pytest.mark.parametrize(
    ("frontier", "said"),
    [
        ({"reward_lable": "gold"}, "try.yaml: frontier: unknown key reward_lable. Known: reward_l"),
        ({"reward_label": 3}, "try.yaml: frontier: reward_label must be a word, got 3"),
        (["a"], "try.yaml: frontier must be names and their values, got ['a']"),
    ],
    ids=str,
)
def test_the_closing_evaluation_takes_what_it_is_given(load: Any, frontier: Any, said: str) -> None:
    assert said in refused(load, {"frontier": frontier})
    assert load(frontier={"reward_label": "x"}).frontier == {"reward_label": "x"}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"trials": 3}, "3 trials by tpe, 2 seeds each, of"),
        ({"minutes": 5}, "5 minutes by tpe, 2 seeds each, of"),
        ({"trials": 3, "minutes": 0.5}, "3 trials or 0.5 minutes by tpe, 2 seeds each, of"),
    ],
    ids=str,
)
def test_a_dry_run_of_a_sampled_sweep(
    write: Write, capsys: pytest.CaptureFixture[str], limits: dict[str, Any], said: str
) -> None:
    sampled = {"sampler": "tpe", "space": {"beta": {"float": [0.5, 2.0]}}} | limits
    assert run_sweep(write(**sampled), dry_run=True) == 0
    assert said in capsys.readouterr().out


def remember(seconds: float) -> None:
    """What two workers' earlier runs left: 60 s of dpo, and the times of the inputs."""
    import csv

    from alignlab.results.tables import POINT_COLUMNS

    row = dict.fromkeys(POINT_COLUMNS, "1") | {"objective": "dpo", "run_id": "dpo-beta9-s0"}
    row |= {"experiment": "demo", "hparams": "{}", "seconds": str(seconds)}
    Path("results/demo").mkdir(parents=True)
    with Path("results/demo/points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, POINT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerow(row)
    Path("results/demo/stages.csv").write_text("stage,job,seconds\nsft,all,120.0\n")


@pytest.mark.parametrize(
    ("changes", "time"),
    [
        ({}, "time: about 4.0 minutes; disk: unknown, only the tables of dpo are left"),
        ({"sampler": "tpe", "trials": 3}, "time: about 3.0 minutes; disk: unknown"),
        ({"sampler": "tpe", "minutes": 5}, "time: about 5.0 minutes; disk: unknown"),
        ({"minutes": 2}, "time: 2 minutes and what is at work then; disk: unknown"),
    ],
    ids=str,
)
def test_an_estimate_says_what_it_knows(
    write: Write, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], time: str
) -> None:
    """4 points or 3 trials, 2 seeds, 60 s each, over 2 workers; sft took 120 s, the pool is new."""
    path = write(**changes)
    remember(60.0)
    assert run_sweep(path, dry_run=True) == 0
    said = capsys.readouterr().out
    assert time in said
    assert "sft, pool to make; time: about 1.0 minutes and that of pool" in said


def test_one_slip_is_told_once(write: Write) -> None:
    space = {"beta": [1.0, 2.0, 3.0], "seconds": [0.0, 0.1]}
    with pytest.raises(ConfigError) as caught:
        run_sweep(write(arms={"dpo": {"args": {"betta": 3}}}, space=space), dry_run=True)
    assert str(caught.value).startswith("arm dpo, beta: 1.0 (and 3 more): call ")
    assert str(caught.value).count("betta") == 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.init_args.beta", -1.0, "DPO needs beta > 0, got -1.0. Set model.init_args.beta"),
        ("model.init_args.optimizer.init_args.lr", -0.1, "optimizer: Invalid learning rate: -0.1"),
        ("model.init_args.schedule.warmup_steps", -3, "schedule.warmup_steps must be >= 0, got -3"),
        ("data.init_args.micro_batch_size", 3, "is not a multiple of micro_batch_size 3"),
        ("model.init_args.reference", "adapter_off", "needs a policy with lora"),
        ("model.init_args.reference", "frozen", None),
    ],
)
def test_an_impossible_value_is_found_without_the_inputs(
    tmp_path: Path, key: str, value: Any, said: str | None
) -> None:
    path = tmp_path / "try.yaml"
    path.write_text(
        "experiment: experiments/quickstart\narms: {dpo: {}}\nsampler: grid\n"
        f"metrics: {{kl: minimize}}\nspace: {{{key}: [{value}]}}\n"
    )
    sweep = load_sweep(path)
    wrong = check({name: sweep.plan.resolved(job) for name, job in sweep.probes().items()})
    assert list(wrong) == ([] if said is None else [f"arm dpo, {key}: {value}"])
    assert said is None or said in wrong[f"arm dpo, {key}: {value}"]


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_where_the_results_should_go(write: Write, below: str) -> None:
    Path(write()).with_name("file").touch()
    folder = Path(f"file{below}")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=r"file is a file\. Name a folder"):
            run_sweep(Path("try.yaml"), results=folder, dry_run=dry_run)
    with pytest.raises(ConfigError, match=r"/proc/x: .*Name a folder that can be written"):
        results_lock(Path("/proc/x")).__enter__()
    with pytest.raises(DataError, match="no such table"):
        read_points(folder / "x" / "points.csv")
    assert not RESULTS.exists()
