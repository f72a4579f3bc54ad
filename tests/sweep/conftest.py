"""A sweep over stages that are never run."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.sweep.spec import Sweep, load_sweep

DPO = {
    "model": {"class_path": "m.DPO", "init_args": {"policy": "{sft}", "beta": 0.3}},
    "trainer": {"callbacks": [{"class_path": "m.Probe"}]},
}


PIPELINE: dict[str, Any] = {
    "seeds": [0, 1],
    "stages": {
        "sft": {"call": "m.sft"},
        "pairs": {"call": "m.pairs", "per_seed": True},
        "dpo": {
            "fit": "dpo.yaml",
            "objective": "dpo",
            "needs": ["sft", "pairs"],
            "per_seed": True,
            "grid": {"model.init_args.beta": [7.0]},
        },
        "pool": {"call": "m.pool", "needs": ["dpo-beta7-s0"]},
    },
    "frontier": {"needs": ["pool"], "args": {"reward_label": "gold"}},
}


SWEEP: dict[str, Any] = {
    "experiment": "demo",
    "arms": {"dpo": {}},
    "space": {"model.init_args.beta": [0.5, 1.0]},
    "metrics": {"reward": "maximize", "kl": "minimize"},
    "sampler": "grid",
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    Path("demo/pipeline.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    Path("demo/dpo.yaml").write_text(yaml.safe_dump(DPO))

    def read(**changes: Any) -> Sweep:
        content = {key: value for key, value in (SWEEP | changes).items() if value is not None}
        Path("try.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_sweep(Path("try.yaml"))

    return read
