"""The fast checks in their order, and the callback that makes them at the start of a run."""

import sys
import time
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.callbacks.probe import FrontierProbe
from alignlab.data.modules import TreeData
from alignlab.doctor import forwards, rows, start, tokens
from alignlab.doctor.finding import Check, Finding, count, findings
from alignlab.doctor.patient import Patient
from alignlab.errors import ConfigError
from alignlab.objectives.base import Objective

FAST: Mapping[str, Check[Patient]] = {
    "refused rows": rows.refused,
    "truncation": rows.truncated,
    "EOS": rows.ends,
    "BOS": rows.begins,
    "border": rows.border,
    "lengths": rows.lengths,
    "order": rows.order,
    "vocabulary": tokens.fits,
    "special tokens": tokens.special_ids,
    "chat template": tokens.markers,
    "likelihood": tokens.likelihood,
    "trained": start.trained,
    "reference": start.reference,
    "dropout": forwards.dropout,
    "precision": forwards.precision,
    "layout": forwards.layout,
    "sampler": forwards.sampler,
    "temperature": forwards.temperature,
    "step 0": start.equals_reference,
    "loss": start.first_loss,
    "ratio": start.ratio,
    "KL": start.kl,
    "reward": start.rewards,
}


def patient_of(trainer: Trainer, objective: Objective) -> Patient:
    """What the checks look at; the trainer has its data."""
    data = getattr(trainer, "datamodule", None)
    probes = [c for c in trainer.callbacks if isinstance(c, FrontierProbe)]  # type: ignore[attr-defined]
    tree_data = data if isinstance(data, TreeData) else None
    return Patient(objective, trainer, tree_data, next(iter(probes), None))


def examine(patient: Patient) -> list[Finding]:
    """Make the fast checks; random generators are left as they were."""
    with torch.random.fork_rng():
        return findings(FAST, patient)


class Doctor(Callback):
    """Makes the fast checks before the first step of a run, but not when a run is continued.

    One line is printed if all is well, else a line for each warning. A stop ends the run.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Examine the run.

        Raises:
            ConfigError: What stops it.
        """
        if trainer.global_step or not isinstance(pl_module, Objective):
            return
        began = time.monotonic()
        found = examine(patient_of(trainer, pl_module))
        took = time.monotonic() - began
        if stops := [each for each in found if each.state == "stop"]:
            more = f" (alignlab doctor shows {len(stops) - 1} more)" if stops[1:] else ""
            raise ConfigError(f"{stops[0].name}: {stops[0].advice}{more}")
        if trainer.is_global_zero:
            for each in found:
                if each.state == "warning":
                    print(f"doctor: {each.name}: {each.advice}", file=sys.stderr)
            print(f"doctor: {count(found)} in {took:.1f} s", file=sys.stderr, flush=True)
