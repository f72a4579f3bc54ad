"""Stop anywhere, continue exactly: ``last.ckpt``, random states and the training clock."""

import os
import random
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

LAST = "last.ckpt"
SHARE = 0.05  # of the training time that saving may take


_folders: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: Trainer) -> Path:
    """Where a training leaves its files: the logger's folder, or the trainer's without a logger."""
    if trainer not in _folders:  # Lightning asks rank 0, so all ranks have to ask the first time
        _folders[trainer] = Path(trainer.log_dir or trainer.default_root_dir)
    return _folders[trainer]


class Resume(Checkpoint):
    """Keeps ``last.ckpt`` in the run's folder: the last finished optimizer step that was saved.

    Lightning's own checkpoint holds weights, optimizer and loops; this adds what it leaves out:
    the states of the global random generators and the seconds trained so far. It is saved between
    optimizer steps only, after all other callbacks: now and then, on SIGTERM and at the end.

    Args:
        every_seconds: Wall time between two checkpoints: what a killed run loses at most. It is
            stretched where needed to keep the saving itself under a twentieth of the time.
        every_steps: Also after each so many optimizer steps; never for this reason when ``None``.
    """

    def __init__(
        self,
        every_seconds: float = 10.0,
        every_steps: int | None = None,
    ) -> None:
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self._step_before = 0
        self._save_from = 0.0
        self._clock_started = 0.0
        self._seconds_before = 0.0
        self._random: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Wall time trained so far, summed over all continuations."""
        running = time.monotonic() - self._clock_started if self._clock_started else 0.0
        return self._seconds_before + running

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and agree on the run's folder while all ranks are here."""
        run_folder(trainer)
        self._clock_started = time.monotonic()
        self._save_from = self._clock_started + self.every_seconds

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the random states of the checkpoint back, just before its next batch."""
        self._step_before = trainer.global_step
        if self._random is not None:
            _restore_random(self._random)
            self._random = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when it is time to, between two optimizer steps."""
        step = trainer.global_step
        if step == self._step_before:  # a micro-batch inside an optimizer step
            return
        late = time.monotonic() >= self._save_from
        due = self.every_steps is not None and step % self.every_steps == 0
        wanted = late or due or trainer.received_sigterm
        # Clocks and signals differ between ranks, and saving is done by all of them together.
        if trainer.strategy.reduce_boolean_decision(wanted, all=False):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished training, so that asking again has nothing to train."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        began = time.monotonic()
        last = run_folder(trainer) / LAST
        beside = last.with_name(f"{LAST}.tmp")
        # Lightning writes through a temporary folder that may be another file system, where a
        # move is a copy; a rename beside the target is atomic.
        trainer.save_checkpoint(beside, weights_only=False)
        if trainer.is_global_zero:
            os.replace(beside, last)
        ended = time.monotonic()
        self._save_from = ended + max(self.every_seconds, (ended - began) / SHARE)

    def state_dict(self) -> dict[str, Any]:
        """Random states and clock, in types that a weights-only load accepts."""
        _, words, position, has_gauss, gauss = np.random.get_state()
        return {
            "seconds": self.seconds,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": list(random.getstate()[1]),
            "python_gauss": random.getstate()[2],
            "numpy": [int(word) for word in words],
            "numpy_rest": [position, has_gauss, gauss],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the clock now and the random states before the next batch."""
        self._seconds_before = state_dict["seconds"]
        self._random = state_dict


def _restore_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    position, has_gauss, gauss = state["numpy_rest"]
    words = np.array(state["numpy"], dtype=np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))
