"""What a run reports: at its start, from time to time, and in TensorBoard beside its losses."""

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from alignlab.callbacks.loggers import log_settings
from alignlab.callbacks.meter import Meter, TimeLeft
from alignlab.callbacks.resume import run_folder
from alignlab.data.modules import TreeData
from alignlab.files import read_record, write_record
from alignlab.models.quantised import layers_in_4_bits
from alignlab.models.sharding import whole
from alignlab.results.commits import present_commit
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder

ROWS = "rows.csv"  # what became of the data's rows, in the run's folder


class Journal(Callback):
    """Prints model, data and the run's folder; logs settings, learning rate and gradient norm.

    ``rows.csv`` in the run's folder holds the report of the rows. ``train/lr`` and
    ``train/grad_norm`` (over all trained weights, before clipping) are logged at the steps at which
    Lightning logs. None of this changes the training.

    Args:
        config: The settings, as they go into TensorBoard's table of hyperparameters.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.settings = dict(_flat(config))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the lines on the first rank."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        said = [_model_line(pl_module)]
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, TreeData):
            said.append(data.report())
            write_table(folder / ROWS, data.report_table())
        print("\n".join([*said, f"files: {folder}"]), file=sys.stderr, flush=True)
        for logger in trainer.loggers:
            log_settings(logger, self.settings)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Log rate and gradient norm of the step to come; gradients are not clipped yet."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not trainer.loggers or not every or (step + 1) % every:
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        values = {"train/grad_norm": float(whole(torch.nn.utils.get_total_norm(gradients)))}
        rates = list(dict.fromkeys(float(group["lr"]) for group in optimizer.param_groups))
        values |= {f"train/lr{f'_{i}' if i else ''}": rate for i, rate in enumerate(rates)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)


class Origin(Callback):
    """Keeps the command of a run of ``alignlab fit`` and the commit of its code in its folder.

    A command that continues the run is added to those before it.

    Args:
        words: Of the command.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.command = shlex.join(words)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record on the first rank."""
        path = RunFolder(run_folder(trainer)).origin_file
        if trainer.is_global_zero:
            before = (read_record(path) or {}).get("commands", [])
            commands = list(dict.fromkeys([*before, self.command]))
            write_record(path, {"commands": commands, "git_sha": present_commit()})


class ProgressLines(Callback):
    """Prints a line to standard error from time to time, where there is no terminal for a bar.

    Args:
        meter: Says how fast the run is.
        every_seconds: Between two lines.
    """

    def __init__(self, meter: Meter, every_seconds: float = 30.0) -> None:
        self.meter, self.every_seconds = meter, every_seconds
        self.left = TimeLeft()
        self._spoke = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._spoke = time.monotonic()
        self.left.start(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Say step, loss, time left and speed, if the last line is old enough."""
        now = time.monotonic()
        if now - self._spoke < self.every_seconds or not self.left.steps_done(trainer):
            return
        self._spoke = now
        left = self.left.seconds(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        said = f"step {trainer.global_step}"
        said += "" if left is None else f" of {int(trainer.estimated_stepping_batches)}"
        said += "" if loss is None else f", loss {float(loss):.4g}"
        said += "" if left is None else f", about {left:.0f} s left"
        speed = self.meter.said()
        print(f"{said}; {speed}" if speed else said, file=sys.stderr, flush=True)


def _model_line(pl_module: LightningModule) -> str:
    trained = getattr(pl_module, "trained", pl_module)
    sizes = [(p.numel(), p.requires_grad) for p in trained.parameters()]
    total, learning = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
    layers = layers_in_4_bits(trained).values()
    coded = sum(layer.in_features * layer.out_features for layer in layers)
    total += coded - sum(layer.weight.numel() for layer in layers)  # which counts bytes
    model = getattr(trained, "model", trained)
    source = getattr(model, "name_or_path", "") or "made from its config"
    return (
        f"{type(pl_module).__name__}: {type(model).__name__} ({source}), {total:,} weights, "
        f"{f'{coded:,} in 4 bits, ' if coded else ''}"
        f"{'all' if learning == total else f'{learning:,}'} trained; "
        f"layout: {getattr(trained, 'layout_report', 'its own')}"
    )


def _flat(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The values below ``node`` by their dotted keys, without the words that every config has."""
    for key, value in node.items():
        here = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping) and value:
            yield from _flat(value, here.removesuffix(".init_args"))
        elif value is not None:
            yield here.removesuffix(".class_path"), value
