"""A saved step is run again from the run's folder alone, with the numbers that it had."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from alignlab import cli
from alignlab.callbacks.non_finite import read
from alignlab.data.trees import PromptTrees
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.sft import SFT


class Losing(SFT):
    """Loses the number of a row: the square root of 0 has no gradient."""

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        losses, means = super().losses(trees)
        if "r5" in trees.ids:
            losses = losses + (0 * losses).sum().sqrt()
        return losses, means


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def stage(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rows = [
        f'{{"id": "r{i}", "prompt": " w{i}", "completion": " w{i + 1} w5"}}\n' for i in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    llama = {"model_type": "llama", "num_attention_heads": 2, **sizes}
    config: dict[str, Any] = {
        "model": {
            "class_path": "tests.training.test_replay.Losing",
            "init_args": {
                "policy": {
                    "class_path": "alignlab.models.Policy",
                    "init_args": {"config": llama, "tokenizer": str(words)},
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {
            "class_path": "alignlab.data.modules.DemonstrationData",
            "init_args": {"source": "rows.jsonl", "batch_size": 4, "micro_batch_size": 2},
        },
        "trainer": {"max_steps": 4, "logger": False, "accelerator": "cpu"},
    }
    (tmp_path / "stage.yaml").write_text(yaml.safe_dump(config))
    return "stage.yaml"


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_a_step_is_run_again(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", "--config", stage) == 1
    said = capsys.readouterr().err
    found = re.search(r"alignlab replay (\S+\.json)", said)
    assert found
    assert "gradient is not finite: micro-batch" in said
    assert "--non_finite skip" in said
    assert call("replay", found[1]) == 0
    out = capsys.readouterr().out
    again = numbers(r"rows: loss (\S+) \(", out)
    assert again == numbers(r"\((\S+) in the run\)", out)
    assert len(again) == 2
    assert out.count("  all finite\n") == 1
    assert out.count("  first bad tensor: gradient at policy") == 1
    norms = numbers(r"gradient norm (\S+)", out)  # two parts and the step
    assert sum(map(torch.isfinite, map(torch.tensor, norms))) == 1
    weights = str(Path(found[1]).with_suffix(".weights.safetensors"))
    assert f"weights: {weights}" in out


def test_another_weights_file_may_be_named(
    stage: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    more = ["--non_finite", "skip", "--trainer.default_root_dir=run"]
    assert call("fit", "--config", stage, *more) == 0
    saved = next((tmp_path / "run" / "non_finite").glob("*.json"))
    capsys.readouterr()
    assert call("replay", str(saved), "--weights", "run/last.ckpt") == 0
    out = capsys.readouterr().out
    assert "weights: run/last.ckpt" in out
    again = numbers(r"rows: loss (\S+) \(", out)
    assert again != numbers(r"\((\S+) in the run\)", out)  # four steps later
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("test_replay.Losing", "test_replay.Other"))
    assert call("replay", str(saved), "--weights", "run/last.ckpt") == 2
    assert "was trained with tests.training.test_replay.Losing" in capsys.readouterr().err
    assert call("replay", str(saved), "--weights", "none.ckpt") == 2
    assert "none.ckpt is missing" in capsys.readouterr().err
    assert call("replay", "stage.yaml") == 2
    assert "is no saved step" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("then", ["stop", "skip"])
def test_two_processes_decide_together(stage: str, tmp_path: Path, then: str) -> None:
    """One of them has the row: both stop with its message, or both leave the step out."""
    words = ["fit", "--config", stage, "--non_finite", then, "--trainer.devices=2"]
    words += ["--trainer.strategy=ddp", "--data.init_args.micro_batch_size=1"]
    root = str(Path(cli.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-m", "alignlab.cli", *words, "--trainer.default_root_dir=run"],
        env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    said = re.findall(r"step \d: gradient is not finite: micro-batch", run.stderr)
    saved = list((tmp_path / "run" / "non_finite").glob("*.json"))
    assert len(saved) == 1, run.stderr
    assert len(read(saved[0])[1]) == 4  # two micro-batches of each
    assert run.returncode == (1 if then == "stop" else 0)
    assert len(said) == (2 if then == "stop" else run.stderr.count("skipped: "))
    assert call("replay", str(saved[0])) == 0
