"""alignlab's side: its objectives under Lightning's Trainer, as ``alignlab fit`` sets them up."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers.models.llama.modeling_llama  # noqa: F401  # counts as an import
from lightning.pytorch.loggers import CSVLogger

from alignlab.data.loader import TreeLoader
from alignlab.data.modules import PreferenceData
from alignlab.data.trees import PromptTree
from alignlab.models import Policy
from alignlab.objectives.base import Objective
from alignlab.objectives.dpo import DPO
from alignlab.training.fit import NOT_SHOWN, TRAINER_DEFAULTS
from sides.work import Case, Meter


class Steps(L.Callback):
    """Gives the meter every step and its loss."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_batch_end(self, *args: Any) -> None:
        """Lightning's hook after the optimizer's step."""
        self.meter.losses.append(float(args[2]["loss"]))
        self.meter.step()


class Pairs(PreferenceData):
    """Rows that are tokenised already, in their own order."""

    def train_dataloader(self) -> TreeLoader:
        """One epoch."""
        return TreeLoader(self.train_trees, batch_size=self.batch_size, shuffle=False)


def trees_of(case: Case) -> list[PromptTree]:
    """The case's rows as alignlab takes them."""
    return [
        PromptTree(i, str(i), tuple(row["prompt"]), tuple(map(tuple, row["completions"])))
        for i, row in enumerate(case.rows)
    ]


def objective_of(case: Case, folder: Path) -> Objective:
    """The case's objective on the model in ``folder``."""
    # Under bf16-mixed Lightning does not clip gradients of a fused optimizer.
    optimizer = partial(torch.optim.AdamW, lr=case.lr, weight_decay=0.0, foreach=True)
    policy = Policy(str(folder / "model"), **case.settings.get("policy", {}))
    if case.objective == "dpo":
        reference: Any = "cached" if case.cached else "frozen"
        cache = str(folder / f"cache-{case.precision}")
        return DPO(policy, optimizer, beta=0.1, reference=reference, reference_cache=cache)
    raise NotImplementedError(case.objective)


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train and measure."""
    for silenced in NOT_SHOWN:
        warnings.filterwarnings("ignore", **silenced)
    meter = Meter(case.warmup)
    data = Pairs("", batch_size=case.batch)
    data.train_trees = trees_of(case)
    trainer = L.Trainer(
        **{
            **TRAINER_DEFAULTS,
            "accelerator": "cpu",
            "accumulate_grad_batches": 1,
            "max_epochs": 1,
            "gradient_clip_val": 1.0,
            "precision": "bf16-mixed" if case.bf16 else "32-true",
            "logger": CSVLogger(folder / "logs"),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [Steps(meter)],
        }
    )
    trainer.fit(objective_of(case, folder), datamodule=data)
    return meter.result(case.batch * case.steps)
