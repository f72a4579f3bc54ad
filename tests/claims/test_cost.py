"""What a training's models and tokens are counted as."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from alignlab.claims.cost import CostRecord, held_models
from alignlab.clock import CLOCK
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table


class Held(L.LightningModule):
    """An objective with two networks, and a reward with a third."""

    def __init__(self, build: Callable[..., Policy]) -> None:
        super().__init__()
        self.policy, self.reference = build("llama"), build("llama")
        self.reward = SimpleNamespace(model=build("gpt2"))


def test_models_tokens_and_weights(build: Callable[..., Policy], tmp_path: Path) -> None:
    module = Held(build)
    assert [type(m).__name__ for m in held_models(module)] == ["Policy"] * 3
    record = CostRecord(dirpath=str(tmp_path))
    optimizer = torch.optim.AdamW(module.policy.parameters())
    trainer: Any = SimpleNamespace(
        global_step=4, datamodule=SimpleNamespace(inner_epochs=2), optimizers=[optimizer]
    )
    CLOCK.totals["rollout"] = 1.0  # of a run before
    record.on_train_start(trainer, module)
    CLOCK.totals["rollout"] += 2.5
    CLOCK.restart()  # the meter's, at any time
    rollouts = SimpleNamespace(trees=SimpleNamespace(totals=SimpleNamespace(tokens=30)))
    for _ in range(4):  # two minibatches, each twice
        record.on_train_batch_end(trainer, module, None, rollouts)
    record.on_train_batch_end(trainer, module, None, SimpleNamespace())  # pairs are not sampled
    record.on_train_end(trainer, module)
    (row,) = read_table(tmp_path / "cost.csv")
    own, other = (
        sum(w.numel() for w in m.parameters()) for m in (module.policy, module.reward.model)
    )
    assert (row["steps"], row["generated_tokens"]) == ("4", "60")
    assert (row["models"], row["trained"]) == ("3", "1")
    assert (int(row["parameters"]), int(row["trained_parameters"])) == (2 * own + other, own)
    assert 0 <= float(row["cpu_seconds"]) < 5
    assert 0 < float(row["seconds"]) < 60
    assert float(row["rollout_seconds"]) == pytest.approx(2.5)
    held = 16 * own + 4 * (own + other)  # AdamW in float32; the other two are only read
    assert float(row["megabytes"]) == pytest.approx(held / 1e6, abs=1e-6)
