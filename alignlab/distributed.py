"""Several processes of one training: why the first of them failed, known to all of them.

When one process fails, the others lose their connections to it, and what the backend says of that
hides the cause. So a process that fails leaves its message in the run's folder for the others.
"""

import time
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch import Trainer

from alignlab.errors import ConfigError, DataError, failure

CAUSE = ".failed.txt"
WAIT = 1.0  # seconds for a message to come over a shared file system
LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


class PeerFailed(RuntimeError):
    """Another process of the training failed."""


def forget_cause(folder: Path) -> None:
    """Forget why an earlier training in ``folder`` failed."""
    (folder / CAUSE).unlink(missing_ok=True)


def cause_of(error: Exception, trainer: Trainer, folder: Path | None) -> Exception:
    """``error``, or what it follows from: the failure of another process.

    Args:
        error: What ended the training in this process.
        trainer: The training's.
        folder: The run's, if the processes have agreed on it.
    """
    if trainer.world_size == 1:
        return error
    cause = None if folder is None else folder / CAUSE
    if not _is_lost_connection(error):
        said = str(error) if isinstance(error, ConfigError | DataError) else failure(error)
        if cause is not None and not cause.exists():
            cause.write_text(f"process {trainer.global_rank} failed: {said}", encoding="utf-8")
        return error
    until = time.monotonic() + WAIT
    while cause is not None and time.monotonic() < until:
        if cause.exists() and (said := cause.read_text(encoding="utf-8")):
            return PeerFailed(said)
        time.sleep(0.1)
    return PeerFailed(
        f"process {trainer.global_rank} lost its connection to another one, which ended without a "
        "message: it was killed, perhaps because memory ran out. Continue from the last checkpoint "
        "with --resume."
    )


def _is_lost_connection(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(words in text for words in LOST)
    )
