"""What a training run costs: seconds, models that it holds, tokens that it generates."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from alignlab.capacity.copies import bytes_of_copies
from alignlab.clock import CLOCK
from alignlab.models.backbone import TreeBackbone
from alignlab.results.csv_tables import write_table


class CostRecord(Callback):
    """Writes ``cost.csv`` when training ends: one row.

    ``cpu_seconds`` are the process's, from the first step's data to the last step. ``seconds`` are
    wall time, of which ``rollout_seconds`` went into sampling and what is computed of the samples,
    without their rewards and the reference's log-probs. ``models`` are
    the networks that are held, ``trained`` those of them with a weight that learns, and
    ``parameters`` and ``trained_parameters`` count weights. ``megabytes`` are those of weights,
    gradients and AdamW's two moments in float32; activations are not counted.
    ``generated_tokens`` counts each sampled token once.

    Args:
        dirpath: Folder to write.
    """

    def __init__(self, dirpath: str) -> None:
        self.dirpath = Path(dirpath)
        self._cpu = self._wall = self._rollouts = self._tokens = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self._cpu, self._tokens = time.process_time(), 0.0
        self._wall, self._rollouts = time.perf_counter(), CLOCK.totals["rollout"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count tokens of rollouts, which inner epochs repeat."""
        rollouts = getattr(batch, "trees", None)
        if rollouts is not None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._tokens += rollouts.totals.tokens / data.inner_epochs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row."""
        models = held_models(pl_module)
        groups = [group for own in trainer.optimizers for group in own.param_groups]
        learning = {id(weight) for group in groups for weight in group["params"]}
        learns = [any(id(w) in learning for w in model.parameters()) for model in models]
        sizes = [float(sum(w.numel() for w in model.parameters())) for model in models]
        trained = [n for n, own in zip(sizes, learns, strict=True) if own]
        frozen = [n for n, own in zip(sizes, learns, strict=True) if not own]
        held = bytes_of_copies(trained, frozen, weight=4, gradient=4, master=0, moments=8)
        row = {
            "steps": trainer.global_step,
            "cpu_seconds": time.process_time() - self._cpu,
            "seconds": time.perf_counter() - self._wall,
            "rollout_seconds": CLOCK.totals["rollout"] - self._rollouts,
            "megabytes": held / 1e6,
            "models": len(models),
            "trained": len(trained),
            "parameters": round(sum(sizes)),
            "trained_parameters": round(sum(trained)),
            "generated_tokens": round(self._tokens),
        }
        write_table(self.dirpath / "cost.csv", [row])


def held_models(pl_module: LightningModule) -> list[nn.Module]:
    """The networks of an objective: policy, reference, value function and the reward's model."""
    found: list[nn.Module] = [m for m in pl_module.modules() if isinstance(m, TreeBackbone)]
    scorer = getattr(getattr(pl_module, "reward", None), "model", None)
    if isinstance(scorer, nn.Module) and not any(scorer is model for model in found):
        found.append(scorer)
    return found
