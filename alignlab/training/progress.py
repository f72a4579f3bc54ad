"""Progress of a run on standard error: a bar in a terminal, otherwise a line from time to time."""

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.objectives.schedule import planned_steps


class ProgressLines(Callback):
    """Prints a line to standard error from time to time, where there is no terminal for a bar."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._began = self._spoke = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = self._spoke = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say step, loss and time left, if the last line is old enough."""
        now, step = time.monotonic(), trainer.global_step
        if now - self._spoke < self.every_seconds or step == self._first_step:
            return
        self._spoke = now
        total = planned_steps(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        said = f"step {step}" if total is None else f"step {step} of {total}"
        said += "" if loss is None else f", loss {float(loss):.4g}"
        if total is not None:
            left = (now - self._began) / (step - self._first_step) * (total - step)
            said += f", about {left:.0f} s left"
        print(said, file=sys.stderr, flush=True)
