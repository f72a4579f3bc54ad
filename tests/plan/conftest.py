"""A small experiment, of which nothing is ever run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.plan.experiment import Plan

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
