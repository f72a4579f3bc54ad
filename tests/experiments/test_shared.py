"""The overlays of ``experiments/_shared``: each parses beside a stage, and those for a CPU run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.models import Policy
from alignlab.training.fit import Command

SHARED = sorted(Path("experiments/_shared").glob("*.yaml"))
ON_A_CPU = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true"]


@pytest.fixture
def stage(words: Path, tmp_path: Path) -> Path:
    rows = "".join(f'{{"prompt": " w{i}", "completion": " w{i + 1} w5"}}\n' for i in range(3, 11))
    (tmp_path / "rows.jsonl").write_text(rows)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    policy = {
        "config": {"model_type": "llama", "num_attention_heads": 2, **sizes},
        "tokenizer": str(words),
    }
    config: dict[str, Any] = {
        "model": {
            "class_path": "alignlab.objectives.sft.SFT",
            "init_args": {
                "policy": {"class_path": "alignlab.models.Policy", "init_args": policy},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {
            "class_path": "alignlab.data.modules.DemonstrationData",
            "init_args": {"source": str(tmp_path / "rows.jsonl"), "batch_size": 4},
        },
        "trainer": {"max_steps": 3, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("overlay", SHARED, ids=lambda path: path.stem)
def test_an_overlay_parses_beside_a_stage(overlay: Path, stage: Path) -> None:
    command = Command(["--config", str(stage), "--config", str(overlay)])
    assert command.config.trainer.max_steps == 3
    wanted = yaml.safe_load(overlay.read_text())["trainer"]
    assert command.config.trainer.accelerator == wanted["accelerator"]


def test_there_is_one_for_every_machine() -> None:
    names = {path.stem for path in SHARED}
    assert names == {"cpu", "one_gpu", "ddp", "fsdp2", "fsdp", "slurm"}


@pytest.mark.slow  # one or two processes that import everything
@pytest.mark.parametrize("name", ["cpu", "ddp", "fsdp2"])
def test_what_a_cpu_can_run_trains_the_same_model(name: str, stage: Path) -> None:
    overlay = f"experiments/_shared/{name}.yaml"
    call = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    call += ["--config", overlay, *(ON_A_CPU if name != "cpu" else [])]
    done = subprocess.run(call, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("Trained 3 steps. Model: ")
    policy = Policy.load(said.removeprefix("Trained 3 steps. Model: "))
    assert sum(weight.numel() for weight in policy.parameters()) > 0
