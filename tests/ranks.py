"""Train cells in this process or as one of several, and keep what they end with.

Run as one rank: python -m tests.ranks FOLDER RANK WORLD PORT. The folder holds ``cells.json`` and
gets a file for each cell, written by rank 0. All cells run in one process: imports are paid once.
"""

import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from alignlab.data.rollout_data import RolloutData
from tests.cells import make_cell

STEPS = 20
ROWS = 23  # in steps of 4 the last has 3, so that two ranks have uneven shares


@dataclass(frozen=True)
class Cell:
    """One training: an objective under a strategy, cut into ``accumulate`` micro-batches a step."""

    name: str
    strategy: str = "ddp"
    accumulate: int = 1
    steps: int = STEPS
    epochs: int | None = None  # ends it instead of ``steps``
    batch: int = 4
    validation: float = 0.2  # share of the rows
    precision: Any = "32-true"
    halts: bool = False  # whether it is interrupted after ``steps``
    keeps: bool = False  # whether the trained model is saved
    resume: str | None = None  # file of a checkpoint to continue from

    @property
    def id(self) -> str:
        """Its name in tests and files."""
        cut = f"-{self.accumulate}" if self.accumulate > 1 else ""
        end = f"-to{self.steps}" if self.steps != STEPS else ""
        end = f"-epochs{self.epochs}" if self.epochs else end
        return f"{self.name}-{self.strategy}{cut}{end}{'-resumed' if self.resume else ''}"


class Kept(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name = version = "kept"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Interruption(L.Callback):
    """Ends a training after ``step`` as a signal would, inside an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


def strategy_of(name: str, world: int) -> Any:
    if world == 1:
        return "auto"
    if name != "fsdp2":
        return name
    from alignlab.distributed import FSDP2

    return FSDP2()


def train(cell: Cell, folder: Path, world: int) -> dict[str, Any]:
    """What rank 0 ends with: the checkpoint's weights and optimizer, and all that was logged."""
    from alignlab.callbacks.resume import Resume
    from alignlab.objectives.schedule import Schedule

    warm = Schedule(warmup_steps=2, decay="cosine", total_steps=STEPS)
    L.seed_everything(0, verbose=False)  # adapters are drawn
    made = make_cell(
        cell.name,
        str(folder / "rows.jsonl"),
        str(folder / ("tied" if cell.name == "classify_tied" else "lm")),
        folder / "cache",
        warm,
        micro=cell.batch // (cell.accumulate * world),
        batch=cell.batch,
        dtype="float64" if cell.precision == "32-true" else "float32",
    )
    if hasattr(made[1], "validation_share") and not isinstance(made[1], RolloutData):
        made[1].validation_share = cell.validation
    out, logger = folder / f"{cell.id}-{world}", Kept()
    trainer = L.Trainer(
        max_steps=-1 if cell.epochs or cell.halts else cell.steps,
        max_epochs=cell.epochs or -1,
        precision=cell.precision,
        accelerator="cpu",
        devices=world,
        strategy=strategy_of(cell.strategy, world),
        accumulate_grad_batches=cell.accumulate,
        gradient_clip_val=0.5,
        log_every_n_steps=1,
        callbacks=[
            Resume(every_seconds=1e6, every_steps=1 if cell.halts else None),
            *([Interruption(cell.steps)] if cell.halts else []),
        ],
        default_root_dir=out,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(*made, ckpt_path=cell.resume, weights_only=True)
    if not trainer.is_global_zero:
        return {}
    if cell.keeps:
        made[0].save(out / "model")
    content = torch.load(out / "last.ckpt", weights_only=True)
    state = content["optimizer_states"][0]["state"]
    return {"weights": content["state_dict"], "moments": state, "logged": logger.rows}


def spawn(cells: Sequence[Cell], folder: Path, world: int = 2) -> dict[str, dict[str, Any]]:
    """Train all cells in one set of ``world`` processes; returns what each ended with."""
    (folder / "cells.json").write_text(json.dumps([asdict(cell) for cell in cells]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.ranks", str(folder)]
    ranks = [
        subprocess.Popen(
            [*words, str(rank), str(world), str(port)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    said = [rank.communicate(timeout=900)[1] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(text[-3000:] for text in said)
    return {cell.id: torch.load(folder / f"{cell.id}.pt", weights_only=True) for cell in cells}


def main(folder: Path, rank: int, world: int, port: str) -> None:
    """Train every cell of ``cells.json`` as one of ``world`` processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for settings in json.loads((folder / "cells.json").read_text()):
        cell = Cell(**settings)
        found = train(cell, folder, world)
        if rank == 0:
            torch.save(found, folder / f"{cell.id}.pt")


def largest_gap(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> float:
    """The largest difference between two nested mappings of tensors of the same names."""
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    gaps: Iterable[float] = (
        largest_gap(value, other[name])
        if isinstance(value, Mapping)
        else float((torch.as_tensor(value) - torch.as_tensor(other[name])).abs().max())
        for name, value in one.items()
    )
    return max(gaps, default=0.0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
