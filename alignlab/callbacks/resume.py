"""Stop anywhere, continue exactly: checkpoints, random states, logs and the training clock."""

import random
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from alignlab.callbacks import checkpoints, logs
from alignlab.callbacks.checkpoints import LAST
from alignlab.callbacks.loggers import service_runs
from alignlab.clock import CLOCK
from alignlab.distributed import forget_cause

__all__ = ["LAST", "Resume", "run_folder"]

SHARE = 0.05  # of the training time that saving may take

_folders: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: Trainer) -> Path:
    """Where a training leaves its files: the logger's folder, or the trainer's without a logger."""
    if trainer not in _folders:  # Lightning asks rank 0, so all ranks have to ask the first time
        _folders[trainer] = Path(trainer.log_dir or trainer.default_root_dir)
    return _folders[trainer]


def known_folder(trainer: Trainer) -> Path | None:
    """The run's folder, if it has been asked for before."""
    return _folders.get(trainer)


class Resume(Checkpoint):
    """Keeps ``last.ckpt`` in the run's folder: the last finished optimizer step that was saved.

    The one before is kept as ``previous.ckpt``, for when the last is damaged. Lightning's own
    checkpoint holds weights, optimizer and loops; this adds what it leaves out: the states of the
    global random generators, the seconds trained so far, the metrics so far, the lengths of the
    logs, the ids of the run in W&B and MLflow, and the run's config. It is saved between optimizer
    steps only, after all other callbacks and after a validation that is due: now and then, on
    SIGTERM and at the end. A SIGTERM that comes between two steps (at an epoch's end, say) ends the
    training without another save: continuing repeats the steps since the last one, bit for bit.
    With several processes, all of them stop after the same step when any of them gets a SIGTERM.
    Lightning's own handler calls the other processes at once, and waits forever if they are
    elsewhere.

    Args:
        every_seconds: Wall time between two checkpoints: what a killed run loses at most. It is
            stretched where needed to keep the saving itself under a twentieth of the time.
        every_steps: Save after this number of optimizer steps, too; ``None`` for time alone.
    """

    def __init__(self, every_seconds: float = 10.0, every_steps: int | None = None) -> None:
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self.identity: dict[str, Any] = {}  # identifies the config that is trained; set by ``fit``
        self.begun = False  # whether a batch has been trained on
        self._trainer: Trainer | None = None
        self._step_before = 0
        self._save_from = 0.0
        self._saved_at: int | None = None  # optimizer step
        self._clock_started = 0.0
        self._seconds_before = 0.0
        self._metrics_before: dict[str, float] = {}
        self._row: dict[str, float] = {}
        self._row_step = 0
        self._lengths: dict[str, int] = {}
        self._standing: dict[str, float] = {}
        self._waits_for_validation = False
        self._to_end = False  # whether this process, or after a step any process, has had a SIGTERM
        self._random: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Wall time trained so far, summed over all continuations."""
        running = time.monotonic() - self._clock_started if self._clock_started else 0.0
        return self._seconds_before + running

    @property
    def metrics(self) -> dict[str, float]:
        """What was logged last under each name, before a continuation or since."""
        now = {} if self._trainer is None else self._trainer.callback_metrics
        return self._metrics_before | {name: float(value) for name, value in now.items()}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep the trainer."""
        self._trainer = trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and agree on the run's folder while all ranks are here."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            forget_cause(folder)
        self._clock_started = time.monotonic()
        self._save_from = self._clock_started + self.every_seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics of the checkpoint's step, which Lightning logs only after saving.

        Where there are several processes, SIGTERM is heard here from now on.
        """
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._hear)  # replaces Lightning's handler
        if self._row:
            for logger in trainer.loggers:
                logger.log_metrics(self._row, step=self._row_step)
            self._row = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._to_end = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Put the random states of the checkpoint back, just before its next batch."""
        self.begun = True
        self._step_before = trainer.global_step
        if self._standing:
            pl_module.log_dict(self._standing, batch_size=1)
            self._standing = {}
        if self._random is not None:
            _restore_random(self._random)
            self._random = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save when it is time to, between two optimizer steps."""
        step = trainer.global_step
        if step == self._step_before:  # a micro-batch inside an optimizer step
            return
        late = time.monotonic() >= self._save_from
        due = self.every_steps is not None and step % self.every_steps == 0
        self._to_end = self._to_end or trainer.received_sigterm
        wanted = late or due or self._to_end or trainer.should_stop
        # Clocks and signals differ between ranks, and saving is done by all of them together.
        flags = torch.tensor([wanted, self._to_end], dtype=torch.int, device=pl_module.device)
        wanted, self._to_end = map(bool, trainer.strategy.reduce(flags, reduce_op="sum").tolist())
        if wanted:
            # After continuing from here, Lightning would skip the validation that is due.
            self._waits_for_validation = _validation_is_due(trainer)
            if not self._waits_for_validation:
                self._row, self._row_step = _row_to_come(trainer)
                self._save(trainer)
                self._row = {}
                self._end_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save now, if saving waited for the validation."""
        if self._waits_for_validation:
            self._waits_for_validation = False
            self._save(trainer)
            self._end_if_asked(trainer)

    def _end_if_asked(self, trainer: Trainer) -> None:
        """Let Lightning end the training once this batch's hooks are done, on all ranks."""
        if self._to_end:
            trainer._signal_connector.received_sigterm = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the finished training, so that asking again has nothing to train.

        A stopped training was saved before and is not saved again: Lightning has closed its epoch
        by now, so a new checkpoint would lose the rest of the epoch.
        """
        if not trainer.should_stop or self._saved_at != trainer.global_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        began = time.monotonic()
        folder = run_folder(trainer)
        # Lightning writes through a temporary folder that may be another file system, where a
        # move is a copy; a rename beside the target is atomic.
        beside = checkpoints.temporary(folder)
        if trainer.is_global_zero:
            self._lengths = logs.lengths(trainer, folder)
        with CLOCK.part("checkpoint"):
            trainer.save_checkpoint(beside, weights_only=False)
            if trainer.is_global_zero:
                checkpoints.put_in_place(beside, folder)
        self._saved_at = trainer.global_step
        ended = time.monotonic()
        self._save_from = ended + max(self.every_seconds, (ended - began) / SHARE)

    def state_dict(self) -> dict[str, Any]:
        """Random states, clock, logs and config, in types that a weights-only load accepts."""
        _, words, position, has_gauss, gauss = np.random.get_state()
        return {
            "identity": self.identity,
            "seconds": self.seconds,
            "metrics": self.metrics,
            "row": self._row,
            "row_step": self._row_step,
            "standing": {} if self._trainer is None else _standing(self._trainer),
            "logs": self._lengths,
            "service_runs": service_runs([] if self._trainer is None else self._trainer.loggers),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": list(random.getstate()[1]),
            "python_gauss": random.getstate()[2],
            "numpy": [int(word) for word in words],
            "numpy_rest": [position, has_gauss, gauss],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over clock and metrics now and the random states before the next batch."""
        self._seconds_before = state_dict["seconds"]
        self._metrics_before = state_dict["metrics"]
        self._row, self._row_step = state_dict["row"], state_dict["row_step"]
        self._standing = state_dict["standing"]
        self._random = state_dict


def state_in(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The state that ``Resume`` put into a checkpoint; empty if there is none."""
    for key, state in checkpoint.get("callbacks", {}).items():
        if key.startswith(Resume.__name__):
            return dict(state)
    return {}


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether a validation follows this batch; asks Lightning's loop, which will decide so."""
    loop = trainer.fit_loop.epoch_loop
    assert trainer.fit_loop._data_fetcher is not None
    return loop._should_check_val_fx(trainer.fit_loop._data_fetcher) and not loop.val_loop.skip


def _row_to_come(trainer: Trainer) -> tuple[dict[str, float], int]:
    """The metrics that Lightning will log after this step's hooks, and their step."""
    connector = trainer._logger_connector
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    if not trainer.loggers or not connector.should_update_logs:
        return {}, step
    row = {name: float(value) for name, value in connector.metrics["log"].items()}
    if not row:
        return {}, step
    step = int(row.pop("step", step))
    return {"epoch": trainer.current_epoch, **row}, step


def _standing(trainer: Trainer) -> dict[str, float]:
    """Metrics that Lightning repeats in every row until the epoch ends."""
    loop = trainer.fit_loop.epoch_loop
    if loop._num_ready_batches_reached():
        return {}
    return {k: float(value) for k, value in loop._results.metrics(on_step=True)["log"].items()}


def _restore_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    position, has_gauss, gauss = state["numpy_rest"]
    words = np.array(state["numpy"], dtype=np.uint32)
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))
