"""Real trainings through the pipeline: killed and continued, they leave the same bytes."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from alignlab.evaluation.tables import read_points
from alignlab.pipeline import run_experiment
from tests.pipeline.test_run import without_seconds

pytestmark = pytest.mark.slow

POLICY = {
    "class_path": "alignlab.models.Policy",
    "init_args": {
        "config": {
            "model_type": "llama",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        "tokenizer": "{world}/tokenizer",
    },
}
FIT: dict[str, Any] = {
    "model": {
        "class_path": "alignlab.objectives.sft.SFT",
        "init_args": {
            "policy": POLICY,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
        },
    },
    "data": {
        "class_path": "alignlab.data.modules.DemonstrationData",
        "init_args": {"source": "{world}/demonstrations.jsonl", "batch_size": 8},
    },
    "trainer": {"max_steps": 60, "accelerator": "cpu"},
}
PROBE = {
    "class_path": "alignlab.callbacks.probe.FrontierProbe",
    "init_args": {
        "prompts": "{world}/prompts_eval.jsonl",
        "reference": "{sft}",
        "reward": {"class_path": "alignlab.rewards.rule.ToySentiment"},
        "samples": 2,
        "max_new_tokens": 12,
        "every_n_steps": 150,
        "limit": 16,
    },
}
MORE = {
    "model.init_args.policy": {
        "class_path": "alignlab.models.Policy",
        "init_args": {"source": "{sft}", "config": None, "tokenizer": None},
    },
    "trainer": {"max_steps": 400, "callbacks": [PROBE]},
}
PLAN = {
    "stages": {
        "world": {
            "call": "alignlab.data.toy.write_world",
            "args": {"demonstrations": 512, "train_prompts": 64, "eval_prompts": 16},
        },
        "sft": {"fit": "sft.yaml", "needs": ["world"]},
        "more": {
            "fit": "sft.yaml",
            "objective": "more",
            "needs": ["world", "sft"],
            "per_seed": True,
            "grid": {"model.init_args.optimizer.init_args.lr": [1e-3, 1e-2]},
            "set": MORE,
        },
    }
}


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "pipeline.yaml").write_text(yaml.safe_dump(PLAN, sort_keys=False))
    (tmp_path / "demo" / "sft.yaml").write_text(yaml.safe_dump(FIT))
    return Path("demo")


def test_killed_trainings_leave_the_same_tables_and_weights(demo: Path) -> None:
    assert run_experiment(demo, results=Path("whole"), only="more") == 0
    points = read_points(Path("whole/points.csv"))
    runs = ["more-lr0.001-s0", "more-lr0.01-s0"]
    assert [(p.run_id, p.step) for p in points] == [(r, s) for r in runs for s in (150, 300, 400)]
    rng = random.Random(1)
    words = [sys.executable, "-m", "alignlab.cli", "run", "demo", "--only", "more"]
    for _ in range(4):
        process = subprocess.Popen([*words, "--results", "killed"])
        time.sleep(rng.uniform(8, 30))
        process.kill()
        process.wait()
    assert run_experiment(demo, results=Path("killed"), only="more") == 0
    assert without_seconds(Path("killed/points.csv")) == without_seconds(Path("whole/points.csv"))
    for run in ("lr0.001-s0", "lr0.01-s0"):
        weights = [
            load_file(f"{folder}/work/more/{run}/model.safetensors")
            for folder in ("whole", "killed")
        ]
        assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
