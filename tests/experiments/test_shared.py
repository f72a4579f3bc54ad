"""The overlays of ``experiments/_shared``: each parses beside a stage, and those for a CPU run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from alignlab.models import Policy
from alignlab.training.fit import Command
from tests.test_cli import call

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
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    words += ["--config", overlay, *(ON_A_CPU if name != "cpu" else [])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^Trained 3 steps\. Model: (.+)$", done.stdout, flags=re.MULTILINE)
    assert found is not None
    folder = Path(found[1])
    ids = torch.tensor([[1, 5, 9, 12, 7]])
    with torch.no_grad():
        wanted = Policy.load(folder).model(ids).logits.log_softmax(-1)
    if name == "fsdp2":  # what two ranks have sharded is one model for any library
        out = folder.parent / "exported"
        assert call("export", str(folder.parent), "--out", str(out)) == 0
        model = AutoModelForCausalLM.from_pretrained(out)
        with torch.no_grad():
            found = model(ids).logits.log_softmax(-1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        assert model.generate(ids, max_new_tokens=2).shape[1] > 5
