"""A training job inside a worker: the stage's config through the same path as ``alignlab fit``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab import fit
from alignlab.callbacks.resume import LAST
from alignlab.pipeline import records

TRAIN = "train"  # checkpoint, logs and evaluations of a run, inside its folder


class Progress(Callback):
    """Tells the pipeline how many optimizer steps are done."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report = report

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report; the receiver drops what comes too often."""
        self.report(trainer.global_step, int(trainer.estimated_stepping_batches))


def train(job: dict[str, Any], folder: Path, report: Callable[[int, int], None]) -> float:
    """Train from the job's config, continuing from ``train/last.ckpt`` if it is there.

    The trained model is written to ``folder`` itself, as a Hugging Face folder.

    Returns:
        Seconds of training, summed over continuations.
    """
    run = folder / TRAIN
    config = _with_folders(job["spec"]["config"], run)
    path = folder / "config.yaml"
    records.write_text(path, yaml.safe_dump(config, sort_keys=False))
    last = run / LAST
    args = ["--config", str(path), *(["--ckpt_path", str(last)] if last.exists() else [])]
    command = fit.build(args, [Progress(report)])
    fit.run_fit(command)
    command.model.save(folder)
    last.unlink()
    return command.resume.seconds


def _with_folders(config: dict[str, Any], run: Path) -> dict[str, Any]:
    trainer = {**(config.get("trainer") or {}), "default_root_dir": str(run)}
    trainer.setdefault(
        "logger",
        {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": str(run), "name": "", "version": ""},
        },
    )
    return {**config, "trainer": trainer}
