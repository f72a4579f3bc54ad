"""What both sides of a comparison are given, and how their work is measured.

Nothing here imports alignlab or a peer: a side's memory counts from after its own imports.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EOS = 2  # of the tokenizer that ``bench.py`` makes
SPECIAL_TOKENS = 4  # ids below are never drawn


@dataclass(frozen=True)
class Case:
    """A piece of work: an objective, the shape of its rows, and the settings of both sides.

    Args:
        name: Names the case on the command line and in tables.
        objective: What is computed: ``dpo``, ``sft``, ...
        prompt: Mean tokens of a prompt; lengths are normal with a deviation of 25 %.
        completion: Mean tokens of a completion before its EOS; the deviation is 30 %.
        k: Completions of a prompt.
        batch: Prompts of an optimizer step.
        steps: Optimizer steps that are measured.
        warmup: Optimizer steps before them.
        precision: ``fp32``, or ``bf16``: float32 weights under autocast.
        cached: Reference log-probs were computed before, and their pass is not measured.
        hidden: Width of the model.
        layers: Layers of the model.
        vocabulary: Tokens of the model.
        lr: Learning rate, large enough that losses move.
        settings: What only this objective has.
    """

    name: str
    objective: str
    prompt: int
    completion: int
    k: int = 2
    batch: int = 8
    steps: int = 8
    warmup: int = 2
    precision: str = "fp32"
    cached: bool = False
    hidden: int = 256
    layers: int = 4
    vocabulary: int = 8192
    lr: float = 3e-4
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def bf16(self) -> bool:
        """Whether matmuls run in bfloat16."""
        return self.precision == "bf16"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Token ids of every prompt and its completions, warm-up first; a function of the case.

        Lengths are drawn in the order of the prototype, so that both have the same ones.
        """
        draw = random.Random(0)

        def length(mean: int, spread: float) -> int:
            return max(2, int(draw.gauss(mean, mean * spread)))

        def ids(n: int) -> list[int]:
            return [draw.randrange(SPECIAL_TOKENS, self.vocabulary) for _ in range(n)]

        rows = []
        for _ in range(self.batch * (self.warmup + self.steps)):
            prompt = length(self.prompt, 0.25)
            completions = [length(self.completion, 0.3) for _ in range(self.k)]
            rows.append(
                {"prompt": ids(prompt), "completions": [[*ids(n), EOS] for n in completions]}
            )
        return rows

    def save(self, path: Path) -> None:
        """Write it for a process of its own."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Case":
        """What ``save`` wrote."""
        return cls(**json.loads(path.read_text()))


class Meter:
    """Seconds and memory of the steps after the warm-up, and every step's loss.

    Args:
        warmup: Steps that are not measured.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.losses: list[float] = []
        self._steps = 0
        self._imported = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self._began = self._ended = (0.0, 0.0)

    def step(self) -> None:
        """Called after each optimizer step."""
        self._ended = (time.process_time(), time.perf_counter())
        self._steps += 1
        if self._steps == self.warmup:
            self._began = (time.process_time(), time.perf_counter())

    def result(self, units: int) -> dict[str, Any]:
        """What a side reports.

        Args:
            units: Prompts of the measured steps.
        """
        cpu, wall = (end - begin for begin, end in zip(self._began, self._ended, strict=True))
        return {
            "cpu": cpu / units,
            "wall": wall / units,
            "peak": resident("VmHWM") - self._imported,
            "losses": self.losses,
        }


def resident(name: str) -> int:
    """Bytes of this process that the kernel has under ``name``."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def batches(case: Case) -> list[Sequence[dict[str, Any]]]:
    """The rows of each optimizer step."""
    rows = case.rows
    return [rows[i : i + case.batch] for i in range(0, len(rows), case.batch)]
