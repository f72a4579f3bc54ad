"""Checks of the machine: disk and memory against what ``alignlab plan`` says the run needs."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jsonargparse import Namespace

from alignlab.capacity.copies import GB
from alignlab.capacity.memory import memory_of, own_place
from alignlab.capacity.setup import Setup, read_setup
from alignlab.doctor.finding import Verdict, ok, stop, warning

CHECKPOINTS = 3  # the last, the one before, and one that is being written
TIGHT = 0.8  # of what is free
_LIMIT, _USED = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))


@dataclass
class Stage:
    """A stage as the plan sees it.

    Args:
        words: As ``alignlab fit`` takes them.
        config: What they are parsed to.
    """

    words: Sequence[str]
    config: Namespace

    @cached_property
    def setup(self) -> Setup:
        """Its models and rows."""
        return read_setup(self.words)


def disk(stage: Stage) -> Verdict:
    """Room for checkpoints and the model, on the disk of the run's folder."""
    setup, folder = stage.setup, Path(stage.config.trainer.default_root_dir or ".").absolute()
    learned = sum(model.size.gradients for model in setup.models if model.trained)
    size = setup.trained.size
    saved = size.weights if setup.trained.lora is None else size.gradients
    need = CHECKPOINTS * learned * (1 + setup.moments) + saved
    folder = next(each for each in (folder, *folder.parents) if each.exists())
    free = free_disk(folder)
    said = f"checkpoints and model take {_gb(need)}, {_gb(free)} are free"
    if need <= TIGHT * free:
        return ok(said)
    advice = f"{said} in {folder}. Set trainer.default_root_dir to another disk, or make room."
    return warning(advice) if need <= free else stop(advice)


def memory(stage: Stage) -> Verdict | None:
    """Room for the models and a step, in the memory of the device."""
    gpu = torch.cuda.is_available() and stage.config.trainer.accelerator != "cpu"
    free = free_memory(gpu=gpu)
    if free is None:
        return None
    need = sum(memory_of(stage.setup, own_place(stage.setup, gpu)).values())
    said = f"training takes {_gb(need)} of memory, {_gb(free)} are free"
    if need <= TIGHT * free:
        return ok(said)
    advice = f"{said}. alignlab plan CONFIG --memory {free / GB:.3g} says what to change."
    return warning(advice) if need <= free else stop(advice)


def free_disk(folder: Path) -> float:
    """Bytes that may be written on the disk of ``folder``."""
    return float(shutil.disk_usage(folder).free)


def free_memory(*, gpu: bool) -> float | None:
    """Bytes that a new process may take; ``None`` where the system does not say."""
    if gpu:
        return float(torch.cuda.mem_get_info()[0])
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    lines = dict(line.split(":") for line in table.read_text().strip().split("\n"))
    free = 1024.0 * int(lines["MemAvailable"].split()[0])
    if _LIMIT.exists() and (limit := _LIMIT.read_text().strip()).isdigit():  # of a container
        free = min(free, float(limit) - float(_USED.read_text()))
    return free


def _gb(size: float) -> str:
    return f"{size / GB:,.2f} GB"
