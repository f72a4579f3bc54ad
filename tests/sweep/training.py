"""8 training steps on a model of a few thousand weights, as a stage of the fake experiment."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from alignlab.models.policy import Policy
from alignlab.rewards.base import Reward
from tests.pipeline.fake_stages import PROMPTS

HERE = "tests.sweep.training"
LR = "model.init_args.optimizer.init_args.lr"
STEPS, EVERY = 8, 2
STILL, WILD = 1e-9, 0.1  # learning rates: one leaves KL at 0, one is at 6 nats in two steps


class Without(Reward):
    """A point less for each w9, which is what the training asks for."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([-float(text.split().count("w9")) for text in completions])


class Slow(Callback):
    """Time to hear that the run should stop."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        time.sleep(0.3)


def write_stage(folder: Path, policy: Policy) -> dict[str, Any]:
    """Write what the stage reads into ``folder``; returns its entry of ``pipeline.yaml``."""
    policy.save(folder / "reference")
    demos = [{"prompt": f" w{i}", "completion": " w9 w9 w9"} for i in range(3, 7)]
    prompts = [{"id": name, "prompt": f" w{3 + i}"} for i, name in enumerate(PROMPTS)]
    for name, rows in (("demos", demos), ("prompts", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    probe = {
        "prompts": str(folder / "prompts.jsonl"),
        "reference": str(folder / "reference"),
        "reward": {"class_path": f"{HERE}.Without"},
        "samples": 8,
        "max_new_tokens": 4,
        "every_n_steps": EVERY,
    }
    config = {
        "model": {
            "class_path": "alignlab.objectives.sft.SFT",
            "init_args": {
                "policy": {"source": str(folder / "reference")},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": STILL}},
            },
        },
        "data": {
            "class_path": "alignlab.data.modules.DemonstrationData",
            "init_args": {"source": str(folder / "demos.jsonl"), "batch_size": 4},
        },
        "trainer": {
            "max_steps": STEPS,
            "accelerator": "cpu",
            "callbacks": [
                {"class_path": "alignlab.callbacks.probe.FrontierProbe", "init_args": probe},
                {"class_path": f"{HERE}.Slow"},
            ],
        },
    }
    (folder / "demo").mkdir(exist_ok=True)
    (folder / "demo" / "small.yaml").write_text(yaml.safe_dump(config))
    return {"fit": "small.yaml", "objective": "small", "per_seed": True}
