"""Flat rows against the packed row: seconds of a forward and backward, in pairs.

    python benchmarks/layouts.py [--hidden 256] [--precision float32] [--pairs 5] [--ragged]

Prints, for shapes (prompt, completion, completions per prompt), the time of the flat layout over
that of the packed one (above 1: faster than flat). ``BLOCK`` in ``alignlab/models/attention.py``
was chosen with it.

``--ragged`` prints the same for batches of demonstrations whose lengths differ as those of real
conversations do (log-normal). Flat rows of a batch are computed in groups of similar length, as in
training.
"""

import argparse
import random
import statistics
import tempfile
import time

import torch

from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.models import Policy
from alignlab.worlds.toy import tokenizer

SHAPES = [(7, 10, 2), (8, 48, 2), (300, 40, 2), (8, 48, 4), (8, 48, 16), (8, 200, 9), (64, 512, 9)]
# Demonstrations a batch, median tokens, spread (standard deviation of the logarithm), most tokens.
RAGGED = [
    (8, 24, 0.5, 128),
    (64, 24, 0.5, 128),
    (8, 96, 0.9, 512),
    (32, 96, 0.9, 512),
    (8, 256, 0.9, 1024),
]


def batch(prompt: int, completion: int, k: int, tokens: int) -> PromptTrees:
    """Enough trees of one shape for about ``tokens`` tokens in flat rows."""
    trees = max(1, tokens // (k * (prompt + completion)))
    return collate(
        [
            PromptTree(
                i, str(i), (5,) * prompt, tuple((6 + j % 20,) * completion for j in range(k))
            )
            for i in range(trees)
        ]
    )


def ragged(demonstrations: int, median: int, spread: float, most: int) -> PromptTrees:
    """One prompt + completion a tree, the prompt a third of it; lengths are log-normal."""
    draw = random.Random(0)
    trees = []
    for i in range(demonstrations):
        n = min(most, max(3, round(median * draw.lognormvariate(0, spread))))
        trees.append(PromptTree(i, str(i), (5,) * (n // 3), ((7,) * (n - n // 3),)))
    return collate(trees)


def seconds(policy: Policy, trees: PromptTrees, layout: str, bf16: bool) -> float:
    """One forward and backward."""
    policy.layout = layout  # type: ignore[assignment]
    policy.zero_grad()
    trees.rows.clear()  # a step makes the row of its batch
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        policy(trees).logps.sum().backward()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--ragged", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer().save_pretrained(folder)
        policy = Policy(
            config={
                "model_type": "llama",
                "hidden_size": args.hidden,
                "intermediate_size": int(2.75 * args.hidden),
                "num_hidden_layers": args.layers,
                "num_attention_heads": max(1, args.hidden // 64),
                "max_position_embeddings": 1024,
                "vocab_size": 4096,
            },
            tokenizer=folder,
        )
    print(f"hidden {args.hidden}, {args.layers} layers, {args.precision}, one thread")
    bf16 = args.precision == "bf16"
    if args.ragged:
        print(" rows median spread  most   flat s  flat/packed")
        for rows, median, spread, most in RAGGED:
            flat, ratio = compare(policy, ragged(rows, median, spread, most), bf16, args.pairs)
            print(f"{rows:5d} {median:6d} {spread:6.1f} {most:5d} {flat:8.3f} {ratio:12.2f}")
        return
    print("prompt completion K   flat s  flat/packed")
    for prompt, completion, k in SHAPES:
        trees = batch(prompt, completion, k, args.tokens)
        flat, ratio = compare(policy, trees, bf16, args.pairs)
        print(f"{prompt:6d} {completion:10d} {k:2d} {flat:8.3f} {ratio:12.2f}")


def compare(policy: Policy, trees: PromptTrees, bf16: bool, pairs: int) -> tuple[float, float]:
    """Median seconds of flat rows, and their time over that of the packed row."""
    times: dict[str, list[float]] = {"flat": [], "packed": []}
    for repeat in range(pairs + 1):  # the first warms up
        for layout, found in times.items():
            took = seconds(policy, trees, layout, bf16)
            if repeat:
                found.append(took)
    ratios = (flat / packed for flat, packed in zip(*times.values(), strict=True))
    return statistics.median(times["flat"]), statistics.median(ratios)


if __name__ == "__main__":
    main()
