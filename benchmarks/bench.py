"""alignlab and its peers on the same work, in turn, each run in a process of its own.

    python benchmarks/bench.py [--only dpo] [--pairs 3] [--against trl plain]

Both sides get the same weights, the same tokenised rows in the same order, the same precision,
optimizer (AdamW), batch and one thread. First both train for three steps: their losses are
compared (a case whose losses differ is an error, not a number) and their memory is measured. Then
runs alternate (A B A B ...) and are timed; their losses are compared too. Memory is what is
resident above the imports, at its peak.

``--against prototype --prototype FILE`` compares with a script that takes the arguments ``prompt
completion batch steps bf16 layers hidden vocabulary`` and prints its seconds as JSON. It says no
losses, so only its time is compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sides.cases import CASES
from sides.process import ENVIRONMENT, Side, started
from sides.work import SPECIAL_TOKENS, Case

OURS = "alignlab"
PEERS = ("trl", "plain", "prototype")
# A run's losses may differ by this share of the larger one, at any step.
TOLERANCE = {"fp32": 2e-3, "bf16": 3e-2}
CHECK_STEPS = 3


class DifferentWork(Exception):
    """Both sides of a case do not compute the same."""


def in_turn(sides: Sequence[str], pairs: int) -> Iterator[tuple[int, str]]:
    """(pair, side), every side once a pair: A B A B ..."""
    for pair in range(pairs):
        for side in sides:
            yield pair, side


def check_losses(case: Case, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two runs' losses, as a share of the loss.

    Raises:
        DifferentWork: It is larger than rounding explains, or there are not as many losses.
    """
    if len(ours) != len(theirs) or not ours:
        raise DifferentWork(f"{case.name}: {len(ours)} losses against {len(theirs)}")
    shares = [abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True)]
    worst = max(shares)
    if not all(share <= TOLERANCE[case.precision] for share in shares):  # a NaN is no agreement
        raise DifferentWork(
            f"{case.name}: losses differ by {worst:.1e} of their size: "
            f"{[round(x, 4) for x in ours]} against {[round(x, 4) for x in theirs]}"
        )
    return worst


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and largest."""
    return statistics.median(values), min(values), max(values)


def prepare(case: Case, folder: Path) -> None:
    """Write the case and a model with random weights and its tokenizer into ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignlab.worlds.words import word_tokenizer

    case.save(folder / "case.json")
    tokenizer = word_tokenizer([f"w{i}" for i in range(case.vocabulary - SPECIAL_TOKENS)])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocabulary,
            hidden_size=case.hidden,
            intermediate_size=3 * case.hidden,
            num_hidden_layers=case.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def of_prototype(case: Case, script: Path) -> dict[str, float]:
    """Seconds a prompt of the script's steps after the warm-up: with them, less them alone."""

    def seconds(steps: int) -> dict[str, float]:
        sizes = (case.prompt, case.completion, case.batch, steps, int(case.bf16))
        words = map(str, (*sizes, case.layers, case.hidden, case.vocabulary))
        command = [sys.executable, str(script), *words]
        done = subprocess.run(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE)
        return json.loads(done.stdout.decode().strip().split("\n")[-1])

    whole, warm = seconds(case.warmup + case.steps), seconds(case.warmup)
    units = case.batch * case.steps
    return {name: (whole[name] - warm[name]) / units for name in ("cpu", "wall")}


def compared(case: Case, sides: dict[str, Side | Path], pairs: int) -> list[dict[str, Any]]:
    """Run a case on all sides in turn, ours first; a row for each peer.

    Args:
        case: The work.
        sides: Their processes, or a script instead of one.
        pairs: How often.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(case, folder)
        peaks = checked_peaks(case, sides, folder)
        case.save(folder / "case.json")
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for pair, peer in in_turn(list(sides), pairs):
            runs[peer].append(one_run(case, sides[peer], folder))
            if losses := runs[peer][-1].get("losses"):
                check_losses(case, runs[OURS][pair]["losses"], losses)
    return [row_of(case, peer, runs[OURS], runs[peer], peaks) for peer in sides if peer != OURS]


def one_run(case: Case, side: Side | Path, folder: Path) -> dict[str, Any]:
    """Seconds a prompt, and losses where they are known."""
    return of_prototype(case, side) if isinstance(side, Path) else side.run(folder)


def checked_peaks(case: Case, sides: dict[str, Side | Path], folder: Path) -> dict[str, int]:
    """Bytes at the peak of each side's first steps, whose losses are the same.

    Raises:
        DifferentWork: They are not.
    """
    replace(case, warmup=1, steps=CHECK_STEPS - 1).save(folder / "case.json")
    runs = {
        name: side.run(folder, exact_memory=True)
        for name, side in sides.items()
        if isinstance(side, Side)
    }
    for run in runs.values():
        check_losses(case, runs[OURS]["losses"], run["losses"])
    return {side: run["peak"] for side, run in runs.items()}


def row_of(
    case: Case, peer: str, ours: list[Any], theirs: list[Any], peaks: dict[str, int]
) -> dict[str, Any]:
    """A line of the table: medians of milliseconds a prompt, and of the pairs' ratios."""
    row: dict[str, Any] = {"case": case.name, "peer": peer, "pairs": len(ours)}
    for what in ("cpu", "wall"):
        for side, runs in (("ours", ours), ("peer", theirs)):
            row[f"{side}_{what}_ms"] = round(statistics.median(r[what] for r in runs) * 1e3, 3)
        ratios = [b[what] / a[what] for a, b in zip(ours, theirs, strict=True)]
        for label, value in zip(("", "_least", "_most"), summary(ratios), strict=True):
            row[f"{what}_ratio{label}"] = round(value, 3)
    for side, key in (("ours", OURS), ("peer", peer)):
        row[f"{side}_peak_mb"] = round(peaks[key] / 1e6) if key in peaks else ""
    return row


HEADER = (
    f"{'case':28s} {'peer':9s} {'ours ms':>8s} {'peer ms':>8s} {'ratio of CPU time':>20s} "
    f"{'wall':>6s} {'ours MB':>7s} {'peer MB':>7s}"
)


def line_of(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    ratio = f"{row['cpu_ratio']:.2f} ({row['cpu_ratio_least']:.2f}-{row['cpu_ratio_most']:.2f})"
    return (
        f"{row['case']:28s} {row['peer']:9s} {row['ours_cpu_ms']:8.1f} {row['peer_cpu_ms']:8.1f} "
        f"{ratio:>20s} {row['wall_ratio']:6.2f} {row['ours_peak_mb']:>7} {row['peer_peak_mb']:>7}"
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name begins so")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="measured steps of each run")
    parser.add_argument("--against", nargs="+", choices=PEERS, default=["trl"])
    parser.add_argument("--prototype", type=Path, help="the script of --against prototype")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    args = parser.parse_args()
    cases = [case for case in CASES if case.name.startswith(tuple(args.only))]
    if args.list:
        print("\n".join(case.name for case in cases))
        return
    if ("prototype" in args.against) != bool(args.prototype):
        parser.error("--against prototype and --prototype FILE go together")
    print(HEADER)
    with ExitStack() as stack:
        sides = {
            name: args.prototype if name == "prototype" else stack.enter_context(started(name))
            for name in (OURS, *args.against)
        }
        for case in cases:
            chosen = replace(case, steps=args.steps or case.steps)
            for row in compared(chosen, sides, args.pairs):
                print(line_of(row), flush=True)


if __name__ == "__main__":
    main()
