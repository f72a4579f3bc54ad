"""A run that was stopped and continued has the log of one that was not."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from alignlab.callbacks import checkpoints, logs
from alignlab.callbacks.resume import LAST, Resume, run_folder, state_in
from tests.callbacks.test_resume import Noisy, Rows, StopAt

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")
Logged = list[tuple[str, int, float]]


class Talking(Noisy):
    """Logs its loss at every step, in training and validation."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss)
        if batch_idx == 0:  # logged again with every row of the epoch
            self.log("train/first", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.layer(batch[0]).mean(), batch_size=3)


class Tell(pl.Callback):
    """Logs by itself, under the number of the step that is done, as probes do."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % 2 == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"probe/x": float(trainer.global_step)}, trainer.global_step)


def loggers(folder: Path) -> list[Logger]:
    return [
        TensorBoardLogger(str(folder), name="", version=""),
        CSVLogger(str(folder), name="", version="table", flush_logs_every_n_steps=100),
    ]


def fit(
    folder: Path, *extra: pl.Callback, ckpt: Path | None = None, epochs: bool = False, **when: Any
) -> Resume:
    pl.seed_everything(3, verbose=False)
    resume = Resume(**when)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=9,
        accelerator="cpu",
        logger=loggers(folder),
        log_every_n_steps=2,
        val_check_interval=None if epochs else 2,  # after each epoch of three steps, or by steps
        check_val_every_n_epoch=1 if epochs else None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Tell(), *extra, resume],
    )
    if ckpt is not None:
        logs.cut(trainer, run_folder(trainer), state_in(checkpoints.read(ckpt))["logs"])
    held_out = DataLoader(TensorDataset(torch.ones(6, 2)), batch_size=3)
    trainer.fit(Talking(), Rows(4), held_out, ckpt_path=ckpt, weights_only=True)
    return resume


def events(folder: Path) -> Logged:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    scalars = [
        (tag, e.step, e.value) for tag in found.Tags()["scalars"] for e in found.Scalars(tag)
    ]
    return sorted(scalars)


def table(folder: Path) -> Logged:
    with (folder / "table" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [(name, int(row["step"]), cell) for row in rows for name, cell in row.items() if cell]
    return sorted((name, step, float(cell)) for name, step, cell in cells)


def test_everything_is_logged_once(tmp_path: Path) -> None:
    """Losses after every second of nine steps, means after every second batch: 4 of each."""
    resume = fit(tmp_path)
    found = events(tmp_path)
    steps = {tag: [s for t, s, _ in found if t == tag] for tag in {t for t, _, _ in found}}
    assert steps["train/loss"] == steps["val/loss"] == [1, 3, 5, 7]
    assert steps["train/first"] == [1, 3, 5, 7]
    assert steps["probe/x"] == [2, 4, 6, 8]
    assert {name for name, _, _ in table(tmp_path)} == {*steps, "step"}
    assert resume.metrics.keys() == {"train/loss", "train/first", "val/loss"}


@pytest.mark.parametrize("stop", [2, 4, 5, 8])
def test_stopped_anywhere_and_continued_it_is_the_same_log(tmp_path: Path, stop: int) -> None:
    """Saved after every third step, so all but two stops lie behind the checkpoint."""
    whole = fit(tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(KeyError, match="killed"):
        fit(cut, StopAt(stop), every_steps=3)
    ckpt = cut / LAST
    resume = fit(cut, ckpt=ckpt) if ckpt.exists() else fit(cut / "anew")
    cut = cut if ckpt.exists() else cut / "anew"
    assert events(cut) == events(tmp_path / "whole")
    assert table(cut) == table(tmp_path / "whole")
    assert resume.metrics == whole.metrics


@pytest.mark.parametrize("epochs", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 6, 7])
def test_saved_after_every_step_it_is_the_same_log(tmp_path: Path, step: int, epochs: bool) -> None:
    """A validation that is due comes before the checkpoint: Lightning would not make it up."""
    fit(tmp_path / "whole", epochs=epochs)
    with pytest.raises(KeyError, match="killed"):
        fit(tmp_path / "cut", StopAt(step), epochs=epochs, every_steps=1)
    fit(tmp_path / "cut", ckpt=tmp_path / "cut" / LAST, epochs=epochs)
    assert events(tmp_path / "cut") == events(tmp_path / "whole")
    assert table(tmp_path / "cut") == table(tmp_path / "whole")


def test_a_finished_training_that_is_asked_again_knows_what_it_logged(tmp_path: Path) -> None:
    """As behind a worker that was killed between its last checkpoint and its record."""
    first = fit(tmp_path)
    before = events(tmp_path), table(tmp_path)
    again = fit(tmp_path, ckpt=tmp_path / LAST)
    assert again.metrics == first.metrics
    assert (events(tmp_path), table(tmp_path)) == before
