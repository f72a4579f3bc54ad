"""What both sides of a comparison are given, and how their work is measured.

Nothing here imports alignlab or a peer: a side's memory counts from after its own imports.
"""

import itertools
import json
import math
import random
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

EOS = 2  # of the tokenizer that ``bench.py`` makes
SPECIAL_TOKENS = 4  # ids below are never drawn
PACK = 512  # tokens of a pack of ragged texts
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A piece of work: an objective, the shape of its rows, and the settings of both sides.

    Args:
        name: Names the case on the command line and in tables.
        objective: What is computed: ``dpo``, ``sft``, ... or ``rollout``.
        prompt: Mean tokens of a prompt; lengths are normal with a deviation of 25 %.
        completion: Mean tokens of a completion before its EOS; the deviation is 30 %. Where
            completions are sampled it is the longest one.
        k: Completions of a prompt.
        batch: Prompts of an optimizer step; of ragged texts the packs.
        steps: Optimizer steps that are measured; of ``rollout`` the calls.
        warmup: Optimizer steps before them.
        precision: ``fp32``, or ``bf16``: float32 weights under autocast.
        cached: Reference log-probs were computed before, and their pass is not measured.
        ragged: Texts of log-normal length, as conversations have, that fill packs of 512 tokens.
        given: For the check of both sides: completions are the rows' own, not sampled.
        exact: All prompts have ``prompt`` tokens and all completions ``completion`` and EOS.
        hidden: Width of the model.
        layers: Layers of the model.
        vocabulary: Tokens of the model.
        lr: Learning rate, large enough that losses move.
        policy: Arguments of alignlab's policy, such as its layout.
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
    ragged: bool = False
    given: bool = False
    exact: bool = False
    hidden: int = 256
    layers: int = 4
    vocabulary: int = 8192
    lr: float = 3e-4
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def bf16(self) -> bool:
        """Whether matmuls run in bfloat16."""
        return self.precision == "bf16"

    @property
    def samples(self) -> bool:
        """Whether completions are sampled."""
        return self.objective in ("ppo", "rloo", "grpo", "rollout")

    @cached_property
    def batches(self) -> list[list[Row]]:
        """Token ids of every step's prompts and completions, warm-up first.

        Lengths are drawn in the order of the prototype, so that both have the same ones.
        """
        draw = random.Random(0)
        steps = range(self.warmup + self.steps)
        if self.ragged:
            packs = range(self.batch)
            return [[row for pack in packs for row in self._pack(draw, pack)] for _ in steps]
        return [[self._row(draw) for _ in range(self.batch)] for _ in steps]

    def _row(self, draw: random.Random) -> Row:
        def length(mean: int, spread: float) -> int:
            return mean if self.exact else max(2, int(draw.gauss(mean, mean * spread)))

        prompt = length(self.prompt, 0.25)
        completions = [length(self.completion, 0.3) for _ in range(self.k)]
        return {
            "prompt": self._ids(draw, prompt),
            "completions": [[*self._ids(draw, n), EOS] for n in completions],
        }

    def _pack(self, draw: random.Random, pack: int) -> Iterator[Row]:
        """Texts that fill a pack, a third of each is prompt; as many as fit."""
        left = PACK
        while True:
            n = min(PACK, max(6, round(self.completion * draw.lognormvariate(0, 0.9))))
            if n > left:
                return
            left -= n
            answer = [*self._ids(draw, n - n // 3 - 1), EOS]
            yield {"prompt": self._ids(draw, n // 3), "completions": [answer], "pack": pack}

    def _ids(self, draw: random.Random, n: int) -> list[int]:
        drawn = (draw.randrange(self.vocabulary - 3) for _ in range(n))
        return [x if x >= SPECIAL_TOKENS else x + SPECIAL_TOKENS for x in drawn]

    @property
    def measured(self) -> list[Row]:
        """The rows of the measured steps."""
        return [row for batch in self.batches[self.warmup :] for row in batch]

    def save(self, path: Path) -> None:
        """Write it for a process of its own."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Case":
        """What ``save`` wrote."""
        return cls(**json.loads(path.read_text()))


def stop_ids(case: Case) -> list[int]:
    """Tokens that end a sampled completion, so that completions end at different lengths.

    With random weights each token is about as likely as any other, and a single stop token would
    hardly ever be drawn. This number of them ends a completion once in ``case.completion`` tokens.
    """
    count = max(1, case.vocabulary // case.completion)
    return [EOS, *range(SPECIAL_TOKENS, SPECIAL_TOKENS + count)]


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
        self._began = self._ended = now()

    def step(self) -> None:
        """Called after each optimizer step."""
        self._ended = now()
        self._steps += 1
        if self._steps == self.warmup:
            self._began = now()

    def result(self, units: float) -> dict[str, Any]:
        """What a side reports.

        Args:
            units: What the measured steps made: prompts, or tokens where they are sampled.
        """
        cpu, wall = (end - begin for begin, end in zip(self._began, self._ended, strict=True))
        return {
            "cpu": cpu / units,
            "wall": wall / units,
            "peak": resident("VmHWM") - self._imported,
            "losses": self.losses,
        }


def now() -> tuple[float, float]:
    """Seconds of the processor and of the clock."""
    return time.process_time(), time.perf_counter()


def resident(name: str) -> int:
    """Bytes of this process that the kernel has under ``name``."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def units_of(case: Case) -> int:
    """Prompts of the measured steps."""
    return len(case.measured)


def words(vocabulary: int) -> list[str]:
    """The tokenizer's words: of letters alone, since it cuts between letters and digits."""
    made = itertools.islice(itertools.product(string.ascii_lowercase, repeat=4), vocabulary)
    return ["".join(letters) for letters in made][SPECIAL_TOKENS:]


def reward_of(text: str) -> float:
    """A rule of a completion: of its first eight words, the share that ends in an odd letter."""
    return sum(ord(word[-1]) % 2 for word in text.split()[:8]) / 8


def changes(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """What the update did to the log-probs of given completions; what two sides must agree on."""
    return [b - a for a, b in zip(before, after, strict=True) if math.isfinite(b)]
