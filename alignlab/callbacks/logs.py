"""Continue the logs of a continued training: cut them back to its checkpoint, then append.

Steps after the checkpoint are done and logged again. A checkpoint has the length of each log, so
cutting is exact, whatever steps the rows name.
"""

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from alignlab.files import sync

EVENTS, TABLE = "*.tfevents.*", "metrics.csv"  # of TensorBoard, in bytes; of CSVLogger, in lines


def lengths(trainer: Trainer, folder: Path) -> dict[str, int]:
    """How long each log in the run's ``folder`` is, with all that was logged on the disk."""
    for logger in trainer.loggers:
        logger.save()
    found = {}
    for path in _logs(folder):
        sync(path)
        found[path.relative_to(folder).as_posix()] = _length(path)
    return found


def cut(trainer: Trainer, folder: Path, known: dict[str, int]) -> None:
    """Bring the logs in ``folder`` back to the lengths ``known``, before any of them is opened."""
    for path in _logs(folder):
        length = known.get(path.relative_to(folder).as_posix())
        if length is None:
            path.unlink()
        elif path.name == TABLE:
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[:length]))
        elif path.stat().st_size > length:
            os.truncate(path, length)
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            _take_up(logger)


def _logs(folder: Path) -> list[Path]:
    return sorted([*folder.rglob(EVENTS), *folder.rglob(TABLE)])


def _length(path: Path) -> int:
    if path.name == TABLE:
        return len(path.read_bytes().splitlines())
    return path.stat().st_size


def _take_up(logger: CSVLogger) -> None:
    """Lightning's CSVLogger deletes the table that it finds; give it the rows to write anew."""
    path = Path(logger.log_dir) / TABLE
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)
        ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        writer = logger.experiment
    writer.metrics[:0] = rows
    writer.save()
