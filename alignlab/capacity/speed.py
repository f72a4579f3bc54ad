"""How long an optimizer step takes: estimated for a named GPU, or measured by a few steps here."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from alignlab.capacity.copies import Device
from alignlab.capacity.memory import Placement, micro_batches
from alignlab.capacity.models import ModelSpec
from alignlab.capacity.setup import Setup, calls_of
from alignlab.capacity.trace import Call
from alignlab.data.trees import PromptTree
from alignlab.training.fit import build, run_fit

MFU = 0.35  # share of a GPU's matmul rate that training reaches: 0.2 to 0.45 in published runs
PROBED, SKIPPED = 5, 2  # steps of a probe, and how many of them only warm up


@dataclass(frozen=True, slots=True)
class Speed:
    """An optimizer step, over all devices together.

    Args:
        tokens: Of prompts and completions, a prompt once for each of its completions.
        seconds: Of which a rollout phase has its share.
        sampling: Of these, seconds in which completions are sampled.
    """

    tokens: int
    seconds: float
    sampling: float = 0.0


def estimated(setup: Setup, place: Placement, device: Device, mfu: float = MFU) -> Speed:
    """The step of median length at ``mfu`` of the device's matmul rate.

    Sampling reads all weights from memory for every token, at the memory's full bandwidth, and
    every device samples its share of a phase. Communication between devices is not counted.
    """
    step, tokens = _median_step(setup), tokens_of_a_step(setup)
    kind = setup.autocast or setup.trained.dtype
    rate = (device.half if kind.itemsize == 2 else device.single) * mfu
    seconds = _step_flops(setup, step, place) / (rate * place.devices)
    if setup.rollout is None:
        return Speed(tokens, seconds)
    share = 1 / setup.rollout["inner_epochs"]  # a phase's samples are used in every inner epoch
    scored = share * _scoring_flops(setup, step, place) / (rate * place.devices)
    sampled = share * _sampling_seconds(setup, step, place, device, rate)
    return Speed(tokens, seconds + scored + sampled, sampled)


def tokens_of_a_step(setup: Setup) -> int:
    """Of the step of median length: prompts, once for each completion, and completions."""
    return _tokens(_median_step(setup))


def _median_step(setup: Setup) -> list[PromptTree]:
    steps = [[setup.trees[k] for k in step] for step in setup.steps]
    return sorted(steps, key=_tokens)[len(steps) // 2]


def _tokens(trees: Iterable[PromptTree]) -> int:
    return sum(len(tree.prompt) + len(c) for tree in trees for c in tree.completions)


def _step_flops(setup: Setup, step: Sequence[PromptTree], place: Placement) -> float:
    """Of all micro-batches: 2 per parameter and token in a forward, 4 more where weights learn."""
    parts = micro_batches(setup, place.devices) * place.devices
    size = -(-len(step) // parts)
    total = 0.0
    for start in range(0, len(step), size):
        trees = step[start : start + size]
        for spec in setup.models:
            if spec.trained:
                backward = 1.0 if spec.lora is not None else 2.0
                again = 1.0 if spec.checkpointed else 0.0
                total += _forward_flops(spec, trees, setup) * (1 + backward + again)
        if setup.refers and setup.rollout is None:
            total += _forward_flops(setup.trained, trees, setup)
    return total


def _scoring_flops(setup: Setup, step: Sequence[PromptTree], place: Placement) -> float:
    """Forwards on new samples: policy, reference, value function and reward model."""
    passes = [setup.trained] * (2 if setup.refers else 1) + setup.models[1:]
    return sum(_forward_flops(spec, step, setup) for spec in passes)


def _forward_flops(spec: ModelSpec, trees: Sequence[PromptTree], setup: Setup) -> float:
    calls, scored = _calls(spec, tuple(trees))
    width = spec.config.get_text_config(decoder=True).hidden_size
    size = spec.size
    linear = sum(call.rows * call.columns for call in calls)
    seen = sum(call.cells for call in calls)
    return 2 * size.matmul * linear + 4 * spec.depth * width * seen + 2 * size.output * scored


@cache
def _calls(spec: ModelSpec, trees: tuple[PromptTree, ...]) -> tuple[tuple[Call, ...], int]:
    return calls_of(spec, trees, gpu=True)


def _sampling_seconds(
    setup: Setup, step: Sequence[PromptTree], place: Placement, device: Device, rate: float
) -> float:
    assert setup.rollout is not None
    rows = sum(len(tree.completions) for tree in step) / place.devices
    together = min(rows, setup.rollout["batch_size"])
    new, size = setup.rollout["max_new_tokens"], setup.trained.size
    a_token = max(
        size.weights / device.bandwidth, 2 * (size.matmul + size.output) * together / rate
    )
    prompts = sum(len(tree.prompt) for tree in step) / place.devices
    return new * a_token * rows / together + 2 * size.matmul * prompts / rate


class Enough(Exception):
    """A probe has seen its steps."""


class _Clock(Callback):
    """Notes when steps end, and stops after ``PROBED`` of them."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.step = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Note the end of an optimizer step."""
        if trainer.global_step > self.step:
            self.step = trainer.global_step
            self.ends.append(time.monotonic())
        if self.step == PROBED:
            raise Enough


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few real steps took here.

    Args:
        seconds: Of an optimizer step, a rollout phase's share included if one began.
        peak: Bytes above what was taken before the model was built.
    """

    seconds: float
    peak: float


def probed(words: Sequence[str]) -> Probe:
    """Train ``PROBED`` steps of a config, write nothing that stays, and measure."""
    clock, gpu = _Clock(), torch.cuda.is_available()
    before = 0.0 if gpu else _resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={PROBED}",
            "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--probe=null",
            "--trainer.callbacks=null",  # some of them need the evaluations of the probe
        ]  # fmt: skip
        command = build([*words, *settings], [clock])
        with contextlib.suppress(Enough):
            run_fit(command)
    peak = float(torch.cuda.max_memory_allocated()) if gpu else _resident("VmHWM") - before
    return Probe((clock.ends[-1] - clock.ends[SKIPPED - 1]) / (len(clock.ends) - SKIPPED), peak)


def _resident(name: str) -> float:
    """Bytes of this process that the kernel has under ``name``; 0 where it keeps no such file."""
    file = Path(f"/proc/{os.getpid()}/status")
    if not file.exists():
        return 0.0
    lines = file.read_text().split("\n")
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(name))
