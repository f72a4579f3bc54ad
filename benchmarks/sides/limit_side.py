"""The limit: the time that the necessary matrix products alone would take on this machine.

Necessary are, for each prompt, its tokens once and each completion's tokens once, the head at the
positions that predict a completion's token, and attention over the keys that a token may see; three
times each (forward, and two products backward) where weights are trained, once for a reference.
Sampling needs a pass over each prompt and one over each token. KTO's divergence needs a second
completion behind each prompt, read by policy and reference. Each product's rate is measured on
the step's own shape, in the case's precision.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sides.work import Case, Row, units_of

LEAST_SECONDS = 0.1  # of measuring a shape
WITH_REFERENCE = ("dpo", "kto", "ppo", "rloo", "grpo")


@dataclass(frozen=True)
class Product:
    """``flops`` in products of ``[batch, m, k] x [batch, k, n]``, forward, or forward and back."""

    flops: float
    m: int
    k: int
    n: int
    batch: int = 1
    trained: bool = False

    def rate(self, dtype: torch.dtype) -> float:
        """FLOP a second of processor time, measured."""
        left = torch.randn(self.batch, self.m, self.k, dtype=dtype)
        right = torch.randn(self.batch, self.n, self.k, dtype=dtype)
        out = torch.randn(self.batch, self.m, self.n, dtype=dtype)
        done, began = 0, time.process_time()
        while (took := time.process_time() - began) < LEAST_SECONDS or not done:
            self._once(left, right, out)
            done += 1
        each = 2 * self.batch * self.m * self.k * self.n * (3 if self.trained else 1)
        return done * each / took

    def _once(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        torch.bmm(left, right.mT)
        if self.trained:
            torch.bmm(out, right)
            torch.bmm(out.mT, left)


def layers(case: Case, tokens: float, rows: int, *, trained: bool) -> Iterator[Product]:
    """The linear layers over ``tokens`` tokens, ``rows`` at a time."""
    width, inner = case.hidden, 3 * case.hidden
    times = 3 if trained else 1
    for count, k, n in ((4, width, width), (2, width, inner), (1, inner, width)):
        flops = 2 * tokens * k * n * count * case.layers * times
        yield Product(flops, max(1, rows), k, n, trained=trained)


def head(case: Case, positions: float, rows: int, *, trained: bool) -> Product:
    """The logits at ``positions``."""
    flops = 2 * positions * case.hidden * case.vocabulary * (3 if trained else 1)
    return Product(flops, max(1, rows), case.hidden, case.vocabulary, trained=trained)


def attention(case: Case, keys: float, length: int, *, trained: bool) -> Product:
    """Two products over ``keys`` pairs of a query and a key; rows of ``length``, four heads."""
    flops = 4 * case.hidden * keys * case.layers * (3 if trained else 1)
    return Product(flops, max(1, length), case.hidden // 4, max(1, length), 4, trained)


def prompt_keys(row: Row) -> float:
    """Pairs of a query and a key in a prompt."""
    n = len(row["prompt"])
    return n * (n + 1) / 2


def tree_keys(row: Row) -> float:
    """Pairs of a query and a key in a prompt with its completions."""
    n = len(row["prompt"])
    return prompt_keys(row) + sum(len(c) * (n + (len(c) + 1) / 2) for c in row["completions"])


def necessary(case: Case) -> Iterator[Product]:
    """The products of the measured steps."""
    rows, steps = case.measured, case.steps
    prompts = sum(len(row["prompt"]) for row in rows)
    completions = [len(c) for row in rows for c in row["completions"]]
    if case.samples:  # all completions are as long as they may be
        completions = [case.completion] * (len(rows) * case.k)
    tokens, keys = prompts + sum(completions), sum(map(tree_keys, rows))
    side_by_side = len(completions) // steps
    if case.samples:
        yield from layers(case, prompts, prompts // steps, trained=False)
        yield from layers(case, sum(completions), side_by_side, trained=False)
        yield head(case, sum(completions), side_by_side, trained=False)
    if case.objective == "rollout":
        return
    passes = [True, *([False] if case.objective in WITH_REFERENCE and not case.cached else [])]
    longest = max(prompts // len(rows), case.completion)
    for trained in passes:
        yield from layers(case, tokens, tokens // steps, trained=trained)
        yield attention(case, keys, longest, trained=trained)
        if case.objective != "rm":
            yield head(case, sum(completions), sum(completions) // steps, trained=trained)
    if case.objective == "kto":
        tokens, keys = 2 * sum(completions), 2 * (keys - sum(map(prompt_keys, rows)))
        yield from layers(case, tokens, tokens // 2 // steps, trained=False)
        yield attention(case, keys, longest, trained=False)
        yield head(case, tokens, tokens // 2 // steps, trained=False)


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Seconds of the products for each unit."""
    dtype = torch.bfloat16 if case.bf16 else torch.float32
    products = list(necessary(case))
    seconds = sum(product.flops / product.rate(dtype) for product in products)
    units = units_of(case)
    if case.objective == "rollout":
        units *= case.k * case.completion
    flops = sum(product.flops for product in products)
    return {"cpu": seconds / units, "wall": seconds / units, "gflop": flops / units / 1e9}
