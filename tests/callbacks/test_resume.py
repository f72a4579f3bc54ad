"""Stopping a training between any two optimizer steps and continuing changes nothing."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from alignlab.callbacks.resume import LAST, Resume, run_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")


class Noisy(pl.LightningModule):
    """A regression whose every step draws from all three global generators."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.drawn: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        noise = torch.rand(1).item() + random.random() + float(np.random.rand()) + random.gauss()
        self.drawn.append(noise)
        return ((self.layer(batch) - noise) ** 2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Rows:
    """Twelve rows in batches, an epoch after the other; knows the place of its next batch."""

    def __init__(self, size: int) -> None:
        self.batches = (torch.arange(24.0).view(12, 2) / 10).split(size)
        self.place = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            self.place += 1
            yield self.batches[(self.place - 1) % len(self)]
            if self.place % len(self) == 0:
                return

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class StopAt(pl.Callback):
    """Ends the training after some step, the way a kill would: without any tidying up."""

    def __init__(self, step: int, signum: int | None = None) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            if self.signum is None:
                raise KeyError("killed")
            os.kill(os.getpid(), self.signum)


def fit(
    folder: Path, *extra: pl.Callback, accumulate: int = 1, ckpt: Path | None = None, **when: Any
) -> tuple[Noisy, Resume]:
    pl.seed_everything(3 if ckpt is None else 99, verbose=False)
    resume = Resume(**when)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=9,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
        callbacks=[resume, *extra],
    )
    module = Noisy()
    trainer.fit(module, Rows(4 // accumulate), ckpt_path=ckpt, weights_only=True)
    return module, resume


class Heard(pl.Callback):
    """Whether the trainer knows of a SIGTERM, before and after each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, bool]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        self.steps.append((trainer.global_step, trainer.received_sigterm))


def test_several_processes_hear_sigterm_after_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is in the middle of a step must not talk to the others, or end, before its end."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    heard = Heard()
    with pytest.raises(SIGTERMException):
        fit(tmp_path, StopAt(3, signal.SIGTERM), heard)
    assert heard.steps == [(step, False) for step in range(4)]
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 4
    assert signal.getsignal(signal.SIGTERM) is before


def weights(module: Noisy) -> list[float]:
    return [x for p in module.parameters() for x in p.flatten().tolist()]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 3, 5, 8])  # an epoch is 3 steps
def test_a_killed_training_continues_bit_for_bit(
    tmp_path: Path, step: int, accumulate: int
) -> None:
    whole, _ = fit(tmp_path / "whole", accumulate=accumulate)
    with pytest.raises(KeyError, match="killed"):
        fit(tmp_path / "cut", StopAt(step), accumulate=accumulate, every_steps=1)
    ckpt = tmp_path / "cut" / LAST
    assert torch.load(ckpt, weights_only=True)["global_step"] == step
    rest, _ = fit(tmp_path / "cut", accumulate=accumulate, ckpt=ckpt)
    assert rest.drawn == whole.drawn[step * accumulate :]
    assert weights(rest) == weights(whole)


def test_only_whole_optimizer_steps_are_saved(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seen.append((tmp_path / LAST).exists())

    fit(tmp_path, Watch(), accumulate=4, every_steps=2)
    # Two steps are eight micro-batches; checkpoints come last, so the ninth sees the file first.
    assert seen[:9] == [False] * 8 + [True]


def test_time_alone_is_a_reason_to_save(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(tmp_path, StopAt(2), every_seconds=0.0)
    assert (tmp_path / LAST).exists()


def test_no_reason_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(tmp_path, StopAt(8), every_seconds=1e6)
    assert not (tmp_path / LAST).exists()


def test_the_end_is_saved_and_leaves_no_half_file(tmp_path: Path) -> None:
    fit(tmp_path, every_seconds=1e6)
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 9


def test_sigterm_saves_the_step_in_progress(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path, StopAt(4, signal.SIGTERM), every_seconds=1e6)
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 5


def test_sigterm_between_two_steps_loses_time_and_nothing_else(tmp_path: Path) -> None:
    """At an epoch's end nothing is saved; what came after the last checkpoint is done again."""

    class StopAtEpochEnd(pl.Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, _ = fit(tmp_path / "whole")
    with pytest.raises((SystemExit, SIGTERMException)):
        fit(tmp_path / "cut", StopAtEpochEnd(), every_seconds=1e6, every_steps=2)
    ckpt = tmp_path / "cut" / LAST
    assert torch.load(ckpt, weights_only=True)["global_step"] == 2  # an epoch is 3 steps
    rest, _ = fit(tmp_path / "cut", ckpt=ckpt)
    assert rest.drawn == whole.drawn[2:]
    assert weights(rest) == weights(whole)


def test_the_clock_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fit(tmp_path, StopAt(4), every_steps=1)
    state = torch.load(tmp_path / LAST, weights_only=True)
    key = next(key for key in state["callbacks"] if key.startswith("Resume"))
    state["callbacks"][key]["seconds"] = 1000.0
    torch.save(state, tmp_path / "older.ckpt")
    _, resume = fit(tmp_path, ckpt=tmp_path / "older.ckpt")
    assert 1000.0 < resume.seconds < 1060.0


def test_the_run_folder_is_the_loggers_where_there_is_one(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="", version="x")
    plain = pl.Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    logged = pl.Trainer(default_root_dir=tmp_path, logger=logger, accelerator="cpu")
    assert run_folder(plain) == tmp_path
    assert run_folder(logged) == tmp_path / "x"
