"""A training job inside a worker: the stage's config through the same path as ``alignlab fit``."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.callbacks import checkpoints
from alignlab.callbacks.kl_bound import KLBound
from alignlab.callbacks.probe import means_at
from alignlab.doctor.examine import Doctor
from alignlab.files import atomic_write
from alignlab.objectives.schedule import planned_steps
from alignlab.pipeline.messages import Reporter, Trained
from alignlab.plan import overlay
from alignlab.results.run_folder import RunFolder, evaluations_in
from alignlab.training import fit
from alignlab.training.identity import OtherConfig
from alignlab.training.loggers import specs_of


class Progress(Callback):
    """Reports steps and evaluations to the pipeline, and stops the run when it asks to."""

    def __init__(self, name: str, reporter: Reporter) -> None:
        self.name, self.reporter = name, reporter
        self._told_of = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report an evaluation that a continued run had finished before it was stopped."""
        self._tell_of_evaluation(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Report progress; ``Reporter`` drops calls that come too often."""
        self.reporter.progress(trainer.global_step, planned_steps(trainer) or 0)
        self._tell_of_evaluation(trainer)
        told = self.reporter.why_stop(self.name) is not None
        if trainer.strategy.reduce_boolean_decision(told, all=False):
            trainer.should_stop = True

    def _tell_of_evaluation(self, trainer: Trainer) -> None:
        step = trainer.global_step
        found = means_at(trainer, step) if step != self._told_of else None
        if found is not None:
            self._told_of = step
            self.reporter.evaluated(step, found)


def train(job: dict[str, Any], folder: Path, reporter: Reporter) -> Trained:
    """Train from the job's config, continuing from the newest whole checkpoint in ``train/``.

    The trained model is written to ``folder`` itself, as a Hugging Face folder.
    """
    own = RunFolder(folder)
    run = own.logs
    config = _with_folders(job["spec"]["config"], run)
    atomic_write(own.config, overlay.write_yaml(config).encode())
    for line in _drop_damaged(run):
        reporter.say(f"{job['name']}: {line}")
    try:
        command = take_part(job, folder, reporter)
    except OtherConfig as error:  # an input was made again and has changed
        reporter.say(f"{job['name']}: {error} Starting over.")
        shutil.rmtree(run)
        command = take_part(job, folder, reporter)
    command.model.save(folder)
    callbacks: list[Callback] = command.trainer.callbacks  # type: ignore[attr-defined]
    bounds = [c.reached for c in callbacks if isinstance(c, KLBound)]
    return Trained(
        seconds=command.resume.seconds,
        metrics=command.resume.metrics,
        stopped=next(filter(None, bounds), reporter.why_stop(job["name"])),
    )


def _drop_damaged(run: Path) -> list[str]:
    """Delete files that a training run cannot continue from, and report damaged ones.

    A damaged evaluation cannot be repeated, because the policy has changed since. Then, or without
    a checkpoint, everything starts over; kept logs would hold the repeated steps twice.
    """
    found, said = checkpoints.newest(run)
    damaged = [
        each.record.name
        for each in evaluations_in(run)
        if each.record.exists() and not each.is_whole
    ]
    if damaged:
        said.append(f"{', '.join(damaged)} in {run} is damaged")
    if found is None or damaged:
        shutil.rmtree(run, ignore_errors=True)
        return [f"{'; '.join(said)}; starting over"] if said else []
    if said:
        (run / checkpoints.LAST).unlink()
        return [f"{'; '.join(said)}; continuing from {checkpoints.PREVIOUS}"]
    return []


def take_part(job: dict[str, Any], folder: Path, reporter: Reporter) -> fit.Command:
    """Train in each of the run's processes, from the config that ``train`` wrote."""
    own = RunFolder(folder)
    found, _ = checkpoints.newest(own.logs)
    args = ["--config", str(own.config)]
    args += [] if found is None else ["--ckpt_path", str(found)]
    command = fit.build(args, [Progress(job["name"], reporter), Doctor()])
    fit.run_fit(command)
    return command


def _with_folders(config: dict[str, Any], run: Path) -> dict[str, Any]:
    trainer = {**(config.get("trainer") or {}), "default_root_dir": str(run)}
    trainer["logger"] = specs_of(trainer.get("logger", "tensorboard"), run)
    return {**config, "trainer": trainer}
