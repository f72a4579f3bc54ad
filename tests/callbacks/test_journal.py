"""Rate, gradient norm, settings and samples where people look for them: in TensorBoard."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from alignlab.callbacks.journal import Journal, Origin
from alignlab.files import read_record
from alignlab.results.commits import present_commit
from alignlab.results.csv_tables import read_table

pytestmark = pytest.mark.filterwarnings("ignore:.*many workers", "ignore:.*LeafSpec")


class Line(pl.LightningModule):
    """Loss 3 w + 4 v: its gradient is (3, 4) at every step, of norm 5; its rate halves."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.v = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (3 * self.w + 4 * self.v).sum()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.8)
        halving = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": halving, "interval": "step"},
        }


def train(folder: Path, *loggers: Any) -> Line:
    module = Line()
    config = {
        "model": {"class_path": "a.Line", "init_args": {"beta": 0.5, "policy": {"source": "m"}}},
        "data": {"init_args": {"limit": None, "columns": ["x", "y"]}},
    }
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=4,
        accelerator="cpu",
        logger=list(loggers),
        log_every_n_steps=2,
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Journal(config)],
    )
    trainer.fit(
        module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)))
    )
    return module


def test_rate_and_norm_before_clipping_at_the_steps_that_are_logged(tmp_path: Path) -> None:
    """Steps 1 and 3, counted from 0; the rate is the step's own: 0.8 / 2 and 0.8 / 8."""
    module = train(tmp_path, CSVLogger(tmp_path, name="", version=""))
    rows = [row for row in read_table(tmp_path / "metrics.csv") if row["train/grad_norm"]]
    assert [int(row["step"]) for row in rows] == [1, 3]
    assert [float(row["train/lr"]) for row in rows] == pytest.approx([0.4, 0.1])
    assert [float(row["train/grad_norm"]) for row in rows] == pytest.approx([5.0, 5.0])
    # Clipped to norm 1, the steps add up to -(0.8 + 0.4 + 0.2 + 0.1) times the direction.
    assert float(module.w.detach()) == pytest.approx(-1.5 * 3 / 5, rel=1e-5)
    assert math.isclose(float(module.v.detach()), -1.5 * 4 / 5, rel_tol=1e-5)


def test_settings_are_listed_and_no_metric_is_made_up(tmp_path: Path) -> None:
    train(tmp_path, TensorBoardLogger(tmp_path, name="", version=""))
    found = EventAccumulator(str(tmp_path)).Reload()
    plugin = found.summary_metadata["_hparams_/session_start_info"].plugin_data
    text = plugin.content.decode(errors="replace")
    assert "model.beta" in text
    assert "model.policy.source" in text
    assert "data.columns" in text
    assert "data.limit" not in text
    assert set(found.Tags()["scalars"]) == {"train/lr", "train/grad_norm"}


def test_a_run_keeps_every_command_that_made_it(tmp_path: Path) -> None:
    trainer = pl.Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    for words in (["fit", "--config", "a b"], ["fit", "--resume"], ["fit", "--resume"]):
        Origin(["alignlab", *words]).on_fit_start(trainer, Line())
    assert read_record(tmp_path / "run.json") == {
        "commands": ["alignlab fit --config 'a b'", "alignlab fit --resume"],
        "git_sha": present_commit(),
    }
