"""alignlab alone: its share of the machine's speed, layouts, how cost grows, memory of log-probs.

    python benchmarks/own.py [--pairs 3] [--only shares layouts growth memory] [--results FOLDER]

``shares``: the time that a step's necessary matrix products take at their measured rate (the
peer ``limit`` of ``bench.py``), over that of the step. An update is DPO's with cached reference
log-probs or SFT's; an on-policy step goes from sampling to the update, PPO's at IMDB's shapes.

``layouts``: seconds of a forward and backward under each fixed layout and under ``auto``, in turn;
``auto`` should not be more than 5 % slower than the best. ``growth``: exponents of a step's time in
prompt length, completions of a prompt and prompts of a batch, by least squares on logarithms; at
most 1 is linear. ``memory``: bytes that log-probs of 16,384 tokens add beyond weights, states and
their gradients, at a vocabulary of 128,000 and width 256. One thread.
"""

import argparse
import csv
import ctypes
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from bench import prepare
from sides import alignlab_side, limit_side
from sides.alignlab_side import trees_of
from sides.work import Case, resident

from alignlab.data.trees import PromptTrees, collate
from alignlab.functional.logps import chunks_of, token_logps
from alignlab.models import Policy
from alignlab.models.layouts import Layout

# Prompt, completion, completions of a prompt, prompts.
GRID = [(300, 40, 2, 8), (8, 48, 2, 16), (8, 48, 16, 4), (8, 200, 9, 1), (64, 512, 9, 1)]
GROWTH = {
    "prompt": [(n, 40, 2, 4) for n in (64, 256, 1024)],
    "completions": [(64, 48, k, 4) for k in (2, 8, 32)],
    "batch": [(64, 48, 2, batch) for batch in (2, 8, 32)],
}
# Steps whose share of the machine's speed is measured.
SHARES = [
    Case("update-dpo-300+40", "dpo", 300, 40, batch=4, steps=2, warmup=1, cached=True),
    Case("update-dpo-8+48", "dpo", 8, 48, batch=16, steps=2, warmup=1, cached=True),
    Case("update-sft-300+40", "sft", 300, 40, k=1, steps=2, warmup=1),
    Case(
        "on-policy-ppo-5+40", "ppo", 5, 40, k=1, batch=128, steps=2, warmup=1, layers=5,
        vocabulary=4096,
    ),
    Case("on-policy-rloo-8+48", "rloo", 8, 48, k=4, batch=32, steps=2, warmup=1),
    Case("on-policy-grpo-8+48", "grpo", 8, 48, k=4, batch=32, steps=2, warmup=1),
]  # fmt: skip
Shape = tuple[int, int, int, int]


def batch_of(shape: Shape) -> PromptTrees:
    """Trees whose lengths differ as those of the comparison with peers do."""
    prompt, completion, k, batch = shape
    case = Case("own", "sft", prompt, completion, k, batch, steps=1, warmup=0)
    return collate(trees_of(case))


def seconds(policy: Policy, trees: PromptTrees, layout: str) -> float:
    """Processor time of a forward and backward."""
    policy.layout = layout  # type: ignore[assignment]
    policy.zero_grad()
    began = time.process_time()
    policy(trees).logps.sum().backward()
    return time.process_time() - began


def in_turn(works: dict[str, Callable[[], float]], pairs: int) -> dict[str, float]:
    """The median of each, run in turn; a round before them warms up."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(pairs + 1):
        for name, work in works.items():
            found[name].append(work())
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Slope of ``log y`` over ``log x`` by least squares."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    over = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return over / sum((x - mean_x) ** 2 for x, _ in logs)


def layouts(policy: Policy, pairs: int) -> list[dict[str, Any]]:
    """A row for each shape of the grid."""
    rows = []
    for shape in GRID:
        trees = batch_of(shape)
        works = {name: partial(seconds, policy, trees, name) for name in get_args(Layout)}
        took = in_turn(works, pairs)
        best = min(value for name, value in took.items() if name != "auto")
        figures = {name: round(value, 4) for name, value in took.items()}
        figures["auto_over_best"] = round(took["auto"] / best, 3)
        rows += [
            {"part": "layouts", "what": f"{shape} {name}", "value": value}
            for name, value in figures.items()
        ]
    return rows


def growth(policy: Policy, pairs: int) -> list[dict[str, Any]]:
    """An exponent for each size."""
    rows = []
    place = {"prompt": 0, "completions": 2, "batch": 3}
    for what, shapes in GROWTH.items():
        works = {
            str(shape[place[what]]): partial(seconds, policy, batch_of(shape), "auto")
            for shape in shapes
        }
        took = in_turn(works, pairs)
        fitted = exponent([(float(size), value) for size, value in took.items()])
        rows.append({"part": "growth", "what": what, "value": round(fitted, 3)})
    return rows


def shares(_: Policy, pairs: int, cases: Sequence[Case] = SHARES) -> list[dict[str, Any]]:
    """A row for each case: the share, in the median of ``pairs`` runs."""
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            prepare(case, Path(name))
            works = {
                side.__name__: partial(_cpu_of, side.run, case, Path(name))
                for side in (alignlab_side, limit_side)
            }
            took = in_turn(works, pairs)
        share = took[limit_side.__name__] / took[alignlab_side.__name__]
        rows.append({"part": "shares", "what": case.name, "value": round(share, 3)})
    return rows


def _cpu_of(run: Callable[[Case, Path], dict[str, Any]], case: Case, folder: Path) -> float:
    return float(run(case, folder)["cpu"])


def memory(_: Policy, pairs: int, tokens: int = 16384, vocabulary: int = 128000) -> list[Any]:
    """MiB that log-probs and their gradients add, at the peak."""
    del pairs
    ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: freed memory goes back
    head = torch.nn.Linear(256, vocabulary, bias=False)
    hidden = torch.randn(tokens, 256, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,))
    gradients = 4 * (head.weight.numel() + hidden.numel())
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    token_logps(hidden, head, targets, chunk=chunks_of(4096, vocabulary)).sum().backward()
    added = resident("VmHWM") - before - gradients
    what = f"MiB of {tokens} log-probs at vocabulary {vocabulary}"
    return [{"part": "memory", "what": what, "value": round(added / 2**20)}]


PARTS: dict[str, Callable[[Policy, int], list[dict[str, Any]]]] = {
    "shares": shares,
    "layouts": layouts,
    "growth": growth,
    "memory": memory,
}


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``own.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "own.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["part", "what", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        prepare(Case("own", "sft", 8, 8), Path(name))
        policy = Policy(str(Path(name) / "model"))
    for part in args.only:
        for row in PARTS[part](policy, args.pairs):
            rows.append(row)
            print(f"{row['part']:8s} {row['what']:60s} {row['value']}", flush=True)
        if args.results is not None:
            write(args.results, rows)


if __name__ == "__main__":
    main()
