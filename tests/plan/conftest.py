"""A small experiment, of which nothing is ever run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.files import write_record
from alignlab.plan.experiment import Plan, load_plan

PIPELINE: dict[str, Any] = {
    "seeds": [0, 1],
    "stages": {
        "world": {"call": "m.world", "args": {"rows": 8}},
        "sft": {"fit": "sft.yaml", "needs": ["world"]},
        "dpo": {
            "fit": "dpo.yaml",
            "objective": "dpo",
            "needs": ["sft"],
            "per_seed": True,
            "grid": {"model.init_args.beta": [0.1, 0.5]},
        },
    },
}


SFT = {"model": {"class_path": "m.SFT"}, "data": {"source": "{world}/rows.jsonl"}}


DPO = {"model": {"class_path": "m.DPO", "init_args": {"policy": "{sft}", "beta": 0.3}}}


def write(folder: Path, **files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write(tmp_path / "demo", pipeline=PIPELINE, sft=SFT, dpo=DPO)


def shas(plan: Plan) -> dict[str, str]:
    return {name: job.config_sha for name, job in plan.jobs.items()}


def changed(before: Plan, after: Plan) -> set[str]:
    assert shas(before).keys() == shas(after).keys()
    return {name for name, sha in shas(before).items() if shas(after)[name] != sha}


TUNED: dict[str, Any] = {
    "fit": "dpo.yaml",
    "objective": "dpo",
    "needs": ["sft", "pairs"],
    "per_seed": True,
    "set": {"probe.prompts": "{world}/eval.jsonl"},
    "tune": {"space": {"model.init_args.beta": {"float": [0.1, 1.0]}, "x": {"int": [0, 9]}}},
}
COMMON: dict[str, Any] = {
    "seed": 7,
    "needs": ["world", "pool"],
    "pool": "{pool}",
    "budgets": [1, 2.0],
    "set": {"probe.prompts": "{world}/validation.jsonl"},
    "space": {"lr": {"float": [0.1, 1.0]}},
}


def tuned(experiment: Path, **changes: Any) -> Plan:
    """The experiment with a stage ``dpo`` whose settings are found by trials."""
    stages = {
        "world": PIPELINE["stages"]["world"],
        "sft": PIPELINE["stages"]["sft"],
        "pairs": {"call": "m.pairs", "per_seed": True, "args": {"seed": "{seed}"}},
        "pool": {"call": "m.pool"},
        "dpo": {**TUNED, "needs": ["world", "sft", "pairs"]},
    }
    content = {"seeds": [0, 1], "tune": COMMON, "stages": stages} | changes
    return load_plan(write(experiment, pipeline=content), results=experiment / "out")


def decide(
    plan: Plan, *trials: int | None, sha: str | None = None, files: Mapping[str, Any] | None = None
) -> None:
    """Write what the tuning of ``dpo`` left: the trial of each budget."""
    settings = {"model.init_args.beta": 0.7, "lr": 0.2, "x": 3}
    chosen = [
        {"budget": budget, "trial": trial, "settings": None if trial is None else settings}
        for budget, trial in zip((1.0, 2.0), trials, strict=True)
    ]
    job = plan.jobs["dpo-tuning"]
    content = {"config_sha": sha or job.config_sha, "chosen": chosen, "files": files or {}}
    content["logs"] = {}
    write_record(plan.record(job), content)
