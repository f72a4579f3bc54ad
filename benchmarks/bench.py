"""alignlab and its peers on the same work, in turn, each run in a process of its own.

    python benchmarks/bench.py [--only dpo] [--pairs 3] [--against trl plain] [--results FOLDER]

Both sides get the same weights, the same tokenised rows in the same order, the same precision,
optimizer (AdamW), batch and one thread. First both train for three steps: their losses are
compared (a case whose losses differ is an error, not a number) and their memory is measured. Then
runs alternate (A B A B ...) and are timed; their losses are compared too. Memory is what is
resident above the imports, at its peak.

Where completions are sampled, sides cannot draw the same ones. There the check is of given
completions: what the updates do to their log-probs is compared. ``rollout`` is checked greedily.

Peers: ``trl``; ``generate``, Hugging Face's sampler; ``plain``, a page of PyTorch with a padded row
for every completion; ``limit``, the time of the necessary matrix products alone, whose ratio is the
share of the machine's speed that is reached; and ``prototype`` with ``--prototype FILE``, a script
that takes ``prompt completion batch steps bf16 layers hidden vocabulary`` and prints its seconds as
JSON. It says no losses, so only its time is compared.

With ``--results`` rows are added to ``FOLDER/table.csv`` as soon as they are known; a call that was
interrupted goes on with what is missing, and its end draws the figure.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from sides.cases import CASES, QUICK, SWEEP
from sides.process import ENVIRONMENT, Side, started
from sides.work import Case, words

OURS = "alignlab"
PEERS = ("trl", "generate", "plain", "limit", "prototype")
# What two sides say may differ by this share of the largest.
TOLERANCE = {"fp32": 2e-3, "bf16": 3e-2}
SAMPLED_TOLERANCE = {"fp32": 0.02, "bf16": 0.2}  # of the small changes that updates make
CHECK_STEPS = 3
PLAIN = ("dpo", "simpo", "sft")  # what is written out there


class DifferentWork(Exception):
    """Both sides of a case do not compute the same."""


def in_turn(sides: Sequence[str], pairs: int) -> Iterator[tuple[int, str]]:
    """(pair, side), every side once a pair: A B A B ..."""
    for pair in range(pairs):
        for side in sides:
            yield pair, side


def check_losses(case: Case, ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two runs' losses, as a share of the largest loss.

    Raises:
        DifferentWork: It is larger than rounding explains, or there are not as many losses.
    """
    if len(ours) != len(theirs) or not ours:
        raise DifferentWork(f"{case.name}: {len(ours)} losses against {len(theirs)}")
    size = max(map(abs, (*ours, *theirs)))
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    tolerance = (SAMPLED_TOLERANCE if case.samples else TOLERANCE)[case.precision]
    if not all(difference <= tolerance * size for difference in differences):  # NaN is no agreement
        raise DifferentWork(
            f"{case.name}: losses differ by {max(differences) / size:.1e} of their size: "
            f"{[round(x, 5) for x in ours]} against {[round(x, 5) for x in theirs]}"
        )
    return max(differences) / size if size else 0.0


def takes_part(case: Case, peer: str) -> bool:
    """Whether ``peer`` can do the case."""
    if case.objective == "rollout":
        return peer in (OURS, "generate", "limit")
    if peer == "plain":
        return case.objective in PLAIN and not case.cached
    if peer == "prototype":
        return case.objective == "dpo" and not case.cached
    return peer != "generate"


def summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and largest."""
    return statistics.median(values), min(values), max(values)


def prepare(case: Case, folder: Path) -> None:
    """Write the case and a model with random weights and its tokenizer into ``folder``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from alignlab.worlds.words import word_tokenizer

    tokenizer = word_tokenizer(words(case.vocabulary))
    config = LlamaConfig(
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
        num_labels=1,
    )
    models = {"model": LlamaForCausalLM, "scorer": LlamaForSequenceClassification}
    name = "scorer" if case.objective == "rm" else "model"
    torch.manual_seed(0)
    models[name](config).save_pretrained(folder / name)
    for each in models:
        tokenizer.save_pretrained(folder / each)


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
            losses = runs[peer][-1].get("losses")
            if losses and not case.samples:
                check_losses(case, runs[OURS][pair]["losses"], losses)
    return [row_of(case, peer, runs[OURS], runs[peer], peaks) for peer in sides if peer != OURS]


def one_run(case: Case, side: Side | Path, folder: Path) -> dict[str, Any]:
    """Seconds a prompt (of ``rollout`` a token), and losses where they are known."""
    return of_prototype(case, side) if isinstance(side, Path) else side.run(folder)


def checked_peaks(case: Case, sides: dict[str, Side | Path], folder: Path) -> dict[str, int]:
    """Bytes at the peak of each side's first steps, whose losses are the same.

    Raises:
        DifferentWork: They are not.
    """
    check = replace(case, warmup=1, steps=CHECK_STEPS - 1, given=case.samples)
    if case.objective == "rollout":  # in bfloat16 two ways of computing soon choose other tokens
        check = replace(check, precision="fp32", steps=1)
    check.save(folder / "case.json")
    runs = {
        name: side.run(folder, exact_memory=True)
        for name, side in sides.items()
        if isinstance(side, Side) and name != "limit"
    }
    for run in runs.values():
        check_losses(check, runs[OURS]["losses"], run["losses"])
    return {side: run["peak"] for side, run in runs.items()}


def row_of(
    case: Case, peer: str, ours: list[Any], theirs: list[Any], peaks: dict[str, int]
) -> dict[str, Any]:
    """A line of the table: medians of milliseconds a prompt, and of the pairs' ratios."""
    row: dict[str, Any] = {"case": case.name, "peer": peer, "pairs": len(ours)}
    row["unit"] = "token" if case.objective == "rollout" else "prompt"
    for what in ("cpu", "wall"):
        for side, runs in (("ours", ours), ("peer", theirs)):
            row[f"{side}_{what}_ms"] = round(statistics.median(r[what] for r in runs) * 1e3, 4)
        ratios = [b[what] / a[what] for a, b in zip(ours, theirs, strict=True)]
        for label, value in zip(("", "_least", "_most"), summary(ratios), strict=True):
            row[f"{what}_ratio{label}"] = round(value, 3)
    for side, key in (("ours", OURS), ("peer", peer)):
        row[f"{side}_peak_mb"] = round(peaks[key] / 1e6) if key in peaks else ""
    row["gflop"] = round(theirs[0]["gflop"], 3) if "gflop" in theirs[0] else ""
    return row


HEADER = (
    f"{'case':28s} {'peer':9s} {'ours ms':>8s} {'peer ms':>8s} {'ratio of CPU time':>20s} "
    f"{'wall':>6s} {'ours MB':>7s} {'peer MB':>7s}"
)


def line_of(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    ratio = f"{row['cpu_ratio']:.2f} ({row['cpu_ratio_least']:.2f}-{row['cpu_ratio_most']:.2f})"
    return (
        f"{row['case']:28s} {row['peer']:9s} {row['ours_cpu_ms']:8.2f} {row['peer_cpu_ms']:8.2f} "
        f"{ratio:>20s} {row['wall_ratio']:6.2f} {row['ours_peak_mb']:>7} {row['peer_peak_mb']:>7}"
    )


def key_of(row: dict[str, Any]) -> tuple[str, str]:
    """What a row of the table is about."""
    return row["case"], row["peer"]


def read_table(folder: Path | None) -> list[dict[str, Any]]:
    """Rows that are known; nothing without a folder."""
    path = None if folder is None else folder / "table.csv"
    if path is None or not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_rows(folder: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into the table; earlier rows of the same case and peer are replaced."""
    if folder is None or not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    table = {key_of(row): row for row in (*read_table(folder), *rows)}
    beside = folder / "table.csv.new"
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
    beside.replace(folder / "table.csv")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name begins so")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="measured steps of each run")
    parser.add_argument("--against", nargs="+", choices=PEERS, default=["trl", "generate", "limit"])
    parser.add_argument("--prototype", type=Path, help="the script of --against prototype")
    parser.add_argument("--sweep", action="store_true", help="also lengths, K, batch, sizes")
    parser.add_argument("--quick", action="store_true", help="four cases, one pair, three steps")
    parser.add_argument("--results", type=Path, help="folder of the table and the figure")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    args = parser.parse_args()
    if ("prototype" in args.against) != bool(args.prototype):
        parser.error("--against prototype and --prototype FILE go together")
    if args.quick:
        args.pairs, args.steps = 1, args.steps or 3
    return args


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """The cases that are asked for."""
    cases = [case for case in (*CASES, *SWEEP) if case.name.startswith(tuple(args.only))]
    if args.quick:
        cases = [case for case in cases if case.name in QUICK]
    if not args.sweep and args.only == [""]:
        cases = [case for case in cases if case not in SWEEP]
    return [replace(case, steps=min(case.steps, args.steps or case.steps)) for case in cases]


def run_all(cases: Iterable[Case], args: argparse.Namespace) -> int:
    """Compare, print, write; how many cases failed."""
    failed, known = 0, set(map(key_of, read_table(args.results)))
    with ExitStack() as stack:
        sides = {
            name: args.prototype if name == "prototype" else stack.enter_context(started(name))
            for name in (OURS, *args.against)
        }
        for case in cases:
            own = {name: side for name, side in sides.items() if takes_part(case, name)}
            if len(own) == 1 or all((case.name, name) in known for name in own if name != OURS):
                continue
            try:
                rows = compared(case, own, args.pairs)
            except (DifferentWork, RuntimeError) as error:
                failed += 1
                print(f"{case.name}: {error}", file=sys.stderr, flush=True)
                continue
            add_rows(args.results, rows)
            for row in rows:
                print(line_of(row), flush=True)
    return failed


def main() -> None:
    """Compare and print."""
    args = arguments()
    cases = chosen_cases(args)
    if args.list:
        print("\n".join(case.name for case in cases))
        return
    print(HEADER)
    failed = run_all(cases, args)
    if args.results is not None:
        from bench_report import write_report

        write_report(args.results, read_table(args.results))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
