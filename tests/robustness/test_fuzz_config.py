"""YAML files with a few slips: refused in one line, or meaning what is written."""

import copy
import itertools
import json
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies

from alignlab.errors import ConfigError
from alignlab.pipeline import scheduler
from alignlab.pipeline.jobs import check
from alignlab.plan import overlay, state
from alignlab.plan.experiment import Plan, load_plan
from alignlab.plan.overlay import PLACEHOLDER
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.training import fit
from tests.robustness.fuzzing import attempt, fuzz, same, spoilt, spoilt_bytes

HERE = "tests.robustness.fuzz_stages"
PIPELINE: dict[str, Any] = {
    "seeds": [0, 1],
    "stages": {
        "world": {"call": f"{HERE}.world", "args": {"rows": 8}},
        "sft": {
            "call": f"{HERE}.train",
            "needs": ["world"],
            "args": {"source": "{world}/rows.jsonl", "seed": 3, "rate": 5.0e-4, "split": "train"},
        },
        "dpo": {
            "call": f"{HERE}.train",
            "objective": "dpo",
            "needs": ["sft"],
            "per_seed": True,
            "grid": {"rate": [0.1, 0.5], "kind": ["plain", "fast"]},
            "args": {
                "source": "{sft}",
                "seed": "{seed}",
                "switch": True,
                "sizes": [1, 2],
                "reward": {"class_path": "alignlab.rewards.rule.ToySentiment"},
            },
        },
        "points": {
            "call": f"{HERE}.train",
            "objective": "points",
            "needs": ["dpo"],
            "per_seed": True,
            "grid": [{"rate": 0.1, "kind": "fast"}, {"rate": 0.2, "kind": "plain"}],
            "args": {"source": "a word", "seed": "{seed}"},
        },
    },
    "frontier": {"needs": ["sft"], "args": {"reward_label": "gold"}},
}
STAGE_KEYS = {"fit", "call", "args", "set", "needs", "per_seed", "grid", "objective"}
SCALE: dict[str, Any] = {
    "seeds": [2],
    "stages": {
        "world": {"args": {"rows": 16}},
        "dpo": {"grid": {"rate": [0.2, 0.3, 0.4]}, "args": {"switch": False, "split": "a"}},
        "points": None,
    },
}
SWEEP: dict[str, Any] = {
    "experiment": "demo",
    "seeds": [0, 1],
    "arms": {
        "dpo": {},
        "fast": {"stage": "dpo", "args": {"kind": "fast"}, "space": {"switch": [True, False]}},
    },
    "space": {"rate": {"float": [0.1, 0.5], "step": 0.1}, "seed": {"int": [0, 4], "step": 2}},
    "metrics": {"reward": "maximize", "kl": "minimize"},
    "sampler": {"random": {"seed": 1}},
    "trials": 5,
    "minutes": 10,
    "frontier": {"reward_label": "gold"},
    "process_per_trial": False,
}
TREE: dict[str, Any] = {
    "word": "a word", "number": 3, "share": 0.5, "rate": 5.0e-7, "none": None, "switch": True,
    "list": [1, "b", {"c": False}], "deep": {"er": {"text": "two\nlines", "quoted": "012"}},
    "date": "2024-01-01", "yes": "yes", "colon": "a: b", "empty": "", "e": [], "m": {},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("fuzz"))
    Path("demo/scales").mkdir(parents=True)
    yield
    os.chdir(before)


def write(path: str, content: Any) -> Path:
    """Write a YAML file, a tree or bytes."""
    if not isinstance(content, bytes):
        content = overlay.write_yaml(content).encode()
    Path(path).write_bytes(content)
    return Path(path)


@fuzz("YAML", 0.5)
@given(spoilt(TREE))
def test_a_tree_is_read_as_it_was_written(tree: dict[str, Any]) -> None:
    found = attempt("YAML", lambda: overlay.read_yaml(write("a.yaml", tree)))
    assert found.refused or same(found.value, tree)


TEXT = yaml.safe_dump(TREE, sort_keys=False).encode()


@fuzz("YAML", 0.5)
@given(spoilt_bytes(TEXT) | spoilt_bytes(TEXT).flatmap(spoilt_bytes))
def test_a_spoilt_file_is_refused_or_says_what_stands_there(content: bytes) -> None:
    found = attempt("YAML", lambda: overlay.read_yaml(write("b.yaml", content)))
    if not found.refused and b"<<" not in content:
        words = yaml.load(content.decode("utf-8-sig"), yaml.BaseLoader)
        assert means(words or {}, found.value), (words, found.value)


def means(words: Any, value: Any) -> bool:
    """Whether ``value`` is what the bare words of a file say, in plain decimal."""
    if isinstance(value, dict):
        same_keys = isinstance(words, dict) and words.keys() == value.keys()
        return same_keys and all(means(words[key], value[key]) for key in value)
    if isinstance(value, list):
        alike = isinstance(words, list) and len(words) == len(value)
        return alike and all(map(means, words, value))
    if value is None or isinstance(value, bool):
        said = {None: ("", "~", "null"), True: ("true",), False: ("false",)}[value]
        return words.lower() in said
    if isinstance(value, (int, float)):
        plain = words.replace("_", "").removesuffix(".")
        hexadecimal = "0x" in plain.lower()
        return bool(
            value == (int(plain, 16) if hexadecimal else float(plain.replace(".inf", "inf")))
        )
    return bool(words == value)


def load(scale: str | None = None) -> Plan:
    """The plan, checked as far as ``alignlab run`` does before it makes anything."""
    plan = load_plan(Path("demo"), scale=scale)
    wrong = check({job.name: plan.to_check(job) for job in plan.jobs.values()})
    if wrong:
        raise ConfigError("; ".join(dict.fromkeys(wrong.values()))[:1_000].replace("\n", " "))
    return plan


def check_plan(plan: Plan, layers: list[dict[str, Any]]) -> None:
    """What is true of every plan that was accepted, from its files alone."""
    entries: dict[str, Any] = {}
    for layer in layers:
        assert layer.keys() <= {"seeds", "set", "stages", "frontier"}
        for name, entry in (layer.get("stages") or {}).items():
            assert set(entry or ()) <= STAGE_KEYS
            entries[name] = overlay.merge(entries.get(name) or {}, entry or {})
            if entry is None:
                entries[name] = None
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    seeds = [*filter(None, (layer.get("seeds") for layer in layers)), [0]]
    asked = seeds[-2] if len(seeds) > 1 else seeds[-1]
    assert {job.stage for job in plan.jobs.values()} == set(entries)
    for name, entry in entries.items():
        jobs = [job for job in plan.asked if job.stage == name]
        grid = entry.get("grid") or {}
        if isinstance(grid, dict):
            points = math.prod(len(axis) for axis in grid.values() if axis is not None)
        else:
            points = len(grid)
        assert len(jobs) == points * (len(asked) if entry.get("per_seed") else 1)
        for job in jobs:
            check_job(plan, job, entry)
    folders = [plan.folder(job).resolve() for job in plan.jobs.values()]
    assert len(set(folders)) == len(folders)
    assert all(folder.is_relative_to(plan.results.resolve()) for folder in folders)
    again = load_plan(Path("demo"), scale=plan.name.partition("-")[2] or None)
    assert [job.config_sha for job in again.jobs.values()] == [
        job.config_sha for job in plan.jobs.values()
    ]
    todo = state.what_to_do(plan)
    for job in todo.jobs:
        json.dumps(scheduler.message(plan, job, "sha", fresh=False))


def check_job(plan: Plan, job: Any, entry: dict[str, Any]) -> None:
    """Each argument is the file's, but for the grid's and for what has a placeholder."""
    args = plan.resolved(job)["args"]
    expected = copy.deepcopy(entry.get("args") or {})
    grid = entry.get("grid") or {}
    keys = grid.keys() if isinstance(grid, dict) else set(itertools.chain(*grid))
    for dotted in keys:
        expected.pop(dotted.split(".")[0], None)
    for key, value in expected.items():
        if not PLACEHOLDER.search(str(value)):
            assert same(args[key], value), (key, value, args[key])


@fuzz("pipeline")
@given(spoilt(PIPELINE, 1) | spoilt(PIPELINE))
def test_a_pipeline_is_refused_or_planned_as_written(tree: dict[str, Any]) -> None:
    write("demo/pipeline.yaml", tree)
    found = attempt("pipeline", load)
    if not found.refused:
        check_plan(found.value, [tree])


@fuzz("scale", 0.7)
@given(spoilt(SCALE, 1) | spoilt(SCALE))
def test_a_scale_is_refused_or_laid_over_as_written(tree: dict[str, Any]) -> None:
    write("demo/pipeline.yaml", PIPELINE)
    write("demo/scales/small.yaml", tree)
    found = attempt("scale", lambda: load("small"))
    if not found.refused:
        check_plan(found.value, [PIPELINE, tree])


@fuzz("scale", 0.3)
@given(spoilt_bytes(yaml.safe_dump(SCALE, sort_keys=False).encode()))
def test_the_bytes_of_a_scale(content: bytes) -> None:
    write("demo/pipeline.yaml", PIPELINE)
    path = write("demo/scales/small.yaml", content)
    found = attempt("scale", lambda: load("small"))
    if not found.refused:
        check_plan(found.value, [PIPELINE, overlay.read_yaml(path)])


@fuzz("sweep")
@given(spoilt(SWEEP, 1) | spoilt(SWEEP))
def test_a_sweep_is_refused_or_tried_as_written(tree: dict[str, Any]) -> None:
    write("demo/pipeline.yaml", PIPELINE)
    path = write("try.yaml", tree)

    def read() -> Sweep:
        sweep = load_sweep(path)
        wrong = check(sweep.to_check())
        if wrong:
            raise ConfigError("; ".join(dict.fromkeys(wrong.values()))[:1_000])
        assert sweep.definition
        assert sweep.needs is not None
        return sweep

    found = attempt("sweep", read)
    if not found.refused:
        check_sweep(found.value, tree)


def check_sweep(sweep: Sweep, tree: dict[str, Any]) -> None:
    """What is true of every sweep that was accepted, from its file alone."""
    assert list(sweep.stages) == list(tree["arms"])
    assert same(dict(sweep.keys.metrics), tree["metrics"])
    for key in ("trials", "minutes", "storage"):
        assert same(getattr(sweep.keys, key), tree.get(key))
    space = {arm: {**(tree.get("space") or {}), **((entry or {}).get("space") or {})}
             for arm, entry in tree["arms"].items()}  # fmt: skip
    for point in sweep.points or [sweep.space.middle(arm) for arm in sweep.stages]:
        assert point.values.keys() == space[point.arm].keys()
        for key, value in point.values.items():
            assert lies_in(value, space[point.arm][key]), (key, value)
        for job in sweep.jobs(point):
            args = sweep.plan.resolved(job)["args"]
            for key, value in point.values.items():
                assert same(args.get(key), value) or "." in key
            for key, value in ((tree["arms"][point.arm] or {}).get("args") or {}).items():
                varied = key in {dotted.split(".")[0] for dotted in point.values}
                assert varied or PLACEHOLDER.search(str(value)) or same(args[key], value)
            json.dumps(scheduler.message(sweep.plan, job, "sha", fresh=False))


def lies_in(value: Any, entry: Any) -> bool:
    """Whether a dimension as the file has it may take ``value``."""
    if isinstance(entry, list):
        return any(same(value, choice) for choice in entry)
    if entry.get("choices") is not None:
        return lies_in(value, entry["choices"])
    low, high = entry.get("float") or entry.get("int")
    return bool(low <= value <= high) and not (entry.get("int") and type(value) is not int)


EXPERIMENT = Path(__file__).parents[2] / "experiments" / "quickstart"
STAGES = ("sft", "dpo", "ppo_gt", "ppo", "reward_model", "kto", "grpo", "simpo")


@cache
def trainings() -> list[dict[str, Any]]:
    """Stages of the quickstart as they are handed to a worker."""
    found: dict[str, dict[str, Any]] = {}
    for scale in (None, "full"):
        plan = load_plan(EXPERIMENT, scale=scale)
        for job in plan.jobs.values():
            if job.stage in STAGES:
                found.setdefault(job.stage, plan.resolved(job)["config"])
    return list(found.values())


@fuzz("stage")
@given(strategies.deferred(lambda: strategies.sampled_from(trainings())).flatmap(spoilt))
def test_a_training_is_refused_or_meant(config: dict[str, Any]) -> None:
    def read() -> Any:
        tree = overlay.read_yaml(write("stage.yaml", config))
        fit.check(tree)
        with fit.plain_errors():
            return fit.Command(tree).config

    found = attempt("stage", read)
    if not found.refused:
        compare(config, found.value)


def compare(given: Any, parsed: Any) -> None:
    """Every value of the file is the parser's, a whole number perhaps as a float."""
    if isinstance(given, dict):
        if "init_args" in parsed and not {"class_path", "init_args"} & given.keys():
            parsed = parsed["init_args"]
        for key, value in given.items():
            assert key in parsed, f"{key} is gone"
            compare(value, parsed[key])
    elif isinstance(given, list):
        assert len(parsed) == len(given)
        for one, other in zip(given, parsed, strict=True):
            compare(one, other)
    elif isinstance(given, str) and hasattr(parsed, "class_path"):
        assert parsed.class_path.endswith(given)
    else:
        assert parsed == (float(given) if isinstance(parsed, float) else given)
        assert isinstance(parsed, bool) == isinstance(given, bool)
