"""Flat against tree rows: seconds of a forward and backward, in pairs.

    python benchmarks/layouts.py [--hidden 256] [--precision float32] [--pairs 5]

Prints, for shapes (prompt, completion, completions per prompt), the time of the flat layout over
that of the tree layout and of ``auto`` (above 1: faster than flat). The planner's two
constants in ``alignlab/models/layouts.py`` should let ``auto`` pick the faster of both.
"""

import argparse
import statistics
import tempfile
import time

import torch

from alignlab.data.toy import tokenizer
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.models import Policy

SHAPES = [(7, 10, 2), (8, 48, 2), (300, 40, 2), (8, 48, 4), (8, 48, 16), (8, 200, 9), (64, 512, 9)]


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


def seconds(policy: Policy, trees: PromptTrees, layout: str, bf16: bool) -> float:
    """One forward and backward."""
    policy.layout = layout  # type: ignore[assignment]
    policy.zero_grad()
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
    print("prompt completion K   flat s   flat/tree  flat/auto")
    for prompt, completion, k in SHAPES:
        trees = batch(prompt, completion, k, args.tokens)
        times: dict[str, list[float]] = {"flat": [], "tree": [], "auto": []}
        for repeat in range(args.pairs + 1):  # the first warms up
            for layout, found in times.items():
                took = seconds(policy, trees, layout, args.precision == "bf16")
                if repeat:
                    found.append(took)
        ratio = {
            name: statistics.median(f / x for f, x in zip(times["flat"], times[name], strict=True))
            for name in ("tree", "auto")
        }
        print(
            f"{prompt:6d} {completion:10d} {k:2d} {statistics.median(times['flat']):8.3f} "
            f"{ratio['tree']:10.2f} {ratio['auto']:10.2f}"
        )


if __name__ == "__main__":
    main()
