"""Several processes of one run: shared work and weights, and the first failure among them.

When one process fails, the others lose their connections to it, and what the backend says of that
hides the cause. So a process that fails leaves its message in the run's folder for the others.
"""

import atexit
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from alignlab.data.loader import rank_and_world_size
from alignlab.errors import ConfigError, DataError, PeerKilled, failure
from alignlab.models.sharding import like_shard, whole

CAUSE = ".failed.txt"
WAIT = 1.0  # seconds for a message to come over a shared file system
LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")


T = TypeVar("T")


def own_share(items: Any) -> Any:
    """This rank's part of a sequence or tensor; all ranks' parts, one after another, are it."""
    rank, world = rank_and_world_size()
    return items[rank * len(items) // world : (rank + 1) * len(items) // world]


def from_all(part: T) -> list[T]:
    """Gather every rank's object, in the order of ranks."""
    world = rank_and_world_size()[1]
    parts = [part] * world
    if world > 1:
        dist.all_gather_object(parts, part)
    return parts


def rows_of_all(rows: Tensor) -> Tensor:
    """``[W N, ...]`` rows of all W ranks, of which each has N."""
    parts = [torch.empty_like(rows) for _ in range(rank_and_world_size()[1])]
    if len(parts) == 1:
        return rows
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@atexit.register
def leave_group() -> None:
    """Close the connections to the other ranks before the interpreter is torn down.

    Lightning does this for NCCL only. The threads of an open gloo group can end a process that has
    done its work with ``terminate called without an active exception``.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


class PeerFailed(RuntimeError):
    """Another process of the training failed."""


def forget_cause(folder: Path) -> None:
    """Delete the record of an earlier failure in ``folder``."""
    (folder / CAUSE).unlink(missing_ok=True)


def cause_of(error: Exception, trainer: Trainer, folder: Path | None) -> Exception:
    """``error``, or the failure of another process that caused it.

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
    return PeerKilled(
        f"process {trainer.global_rank} lost its connection to another one, which ended without a "
        "message: it was killed, perhaps because memory ran out. Continue from the last checkpoint "
        "with --resume."
    )


def _is_lost_connection(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(words in text for words in LOST)
    )


class FSDP2(ModelParallelStrategy):
    """Shard weights, gradients and optimizer states over all ranks (PyTorch's ``fully_shard``).

    Checkpoints are those of one process: a single file with whole tensors, without frozen weights.
    So any number of ranks continues from any other's, under this strategy or another.

    Args:
        cpu_offload: Keep what is sharded in the CPU's memory, and copy a block to its GPU while it
            computes: slower, with room for a larger model.
        timeout_minutes: How long a rank waits for the others.
    """

    def __init__(self, cpu_offload: bool = False, timeout_minutes: float = 30.0) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.cpu_offload = cpu_offload

    def setup_environment(self) -> None:
        """Make one mesh of all ranks, for data alone."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Make the optimizers.

        Raises:
            ConfigError: One cannot update a part of a sharded weight.
        """
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if type(optimizer).__module__.startswith("bitsandbytes."):
                raise ConfigError(
                    f"model.init_args.optimizer: {type(optimizer).__name__} of bitsandbytes cannot "
                    "update sharded weights (trainer.strategy FSDP2). Use torch.optim.AdamW, whose "
                    "states are sharded too, or one device, or the strategy ddp."
                )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning gives the whole states to ``load_optimizer_state_dict``."""
        return True

    @torch.no_grad()
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors of what is trained, on rank 0's CPU; every rank takes part."""
        module: Any = self.lightning_module
        kept, state = module.kept_names(), dict[str, Any]()
        for name, tensor in module.state_dict().items():
            if name in kept:
                full = whole(tensor)
                state[name] = full.cpu() if self.global_rank == 0 else full.new_empty(0)
        return state

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Copy this rank's part of each tensor."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        for name, tensor in checkpoint["state_dict"].items():
            own[name].copy_(like_shard(tensor, own[name]))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state that the optimizer of one process has; every rank takes part."""
        state = optimizer.state_dict()
        parts = {  # in new dictionaries: the old ones are the optimizer's own
            number: {
                name: whole(value).cpu() if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        return {**state, "state": parts}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each optimizer this rank's part of its states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            parts = {
                number: {
                    name: like_shard(value, weights[number])
                    if isinstance(value, Tensor) and value.shape == weights[number].shape
                    else value
                    for name, value in values.items()
                }
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of the file; tensors are read on first use."""
        found: dict[str, Any] = torch.load(
            checkpoint_path, map_location="cpu", mmap=True, weights_only=weights_only
        )
        return found
