"""Seconds that ``alignlab frontier`` takes over a made-up sweep, and megabytes of its report.

    python benchmarks/large_sweep.py [--trials 1000] [--checkpoints 4] [--prompts 256] [--arms 2]

The folder has what a finished sweep has: tables, per-prompt results, kept completions and a pool.
Seconds are given by the clock and of the processor, which a busy machine disturbs less.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from alignlab.results.pool import POOL_NAME, Pool
from alignlab.results.prompt_tables import PromptScores, PromptTable, write_prompt_tables
from alignlab.results.run_folder import Evaluation, SampleText
from alignlab.results.tables import Point, merge_points

SAMPLES = 64  # of the reference, for each prompt
WORDS = ("honest", "slow", "story", "film", "a", "that", "nobody", "likes")


def main() -> None:
    """Make the folder, draw its frontier, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--arms", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        make(folder, args.trials, args.checkpoints, args.prompts, args.arms)
        began = time.monotonic()
        command = [sys.executable, "-m", "alignlab.cli", "frontier", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        size = (folder / "report.html").stat().st_size
    print(
        f"{args.trials} trials: {seconds:.1f} s, {cpu:.1f} s of the processor, "
        f"report {size / 1e6:.2f} MB"
    )


def make(folder: Path, trials: int, checkpoints: int, prompts: int, arms: int) -> None:
    """Write the results of ``trials`` runs; rewards grow like the root of their KL."""
    random = np.random.default_rng(0)
    ids = tuple(f"p{i:04d}" for i in range(prompts))
    rewards = random.normal(size=(prompts, SAMPLES))
    texts = tuple(tuple(" ".join(random.choice(WORDS, 12)) for _ in range(SAMPLES)) for _ in ids)
    _pool(ids, rewards, texts).save(folder / POOL_NAME)
    first = Evaluation(folder, 0)  # whose texts all share
    first.write_texts(_kept(i, " ".join(random.choice(WORDS, 60))) for i in ids)
    kept = first.texts
    points = []
    for trial in range(trials):
        arm, beta = f"arm{trial % arms}", float(f"{0.1 * 1.005**trial:.4g}")
        run = f"{arm}-beta{beta:g}-lr{trial % 7}-s0"
        tables = []
        for step in range(1, checkpoints + 1):
            kl = np.abs(random.normal(step / checkpoints / beta, 0.05, size=prompts))
            gain = 0.4 * np.sqrt(kl) + random.normal(scale=0.1, size=prompts)
            scores = PromptScores(
                prompt_ids=ids,
                kl=kl,
                kl_k1=kl,
                reward=rewards.mean(1) + gain,
                proxy_reward=None,
                length=np.full(prompts, 60.0),
                n_samples=np.full(prompts, 4),
            )
            table = PromptTable(objective=arm, run_id=run, seed=0, step=10 * step, scores=scores)
            tables.append(table)
            points.append(_point(table, {"beta": beta, "lr": 1e-4 * (1 + trial % 7)}))
            logs = folder / "stages" / arm / run.removeprefix(f"{arm}-") / "train"
            own = Evaluation(logs, 10 * step).texts
            own.parent.mkdir(parents=True, exist_ok=True)
            os.link(kept, own)
        write_prompt_tables(folder / "points" / f"{run}.parquet", tables)
    merge_points(folder / "points.csv", points)


def _pool(ids: tuple[str, ...], rewards: "np.ndarray", texts: tuple[tuple[str, ...], ...]) -> Pool:
    nothing = np.zeros_like(rewards)
    return Pool(
        prompt_ids=ids,
        rewards=rewards,
        proxy=None,
        proposals=("reference",),
        proposal=np.zeros(SAMPLES, dtype=np.int64),
        log_ref=nothing,
        log_mixture=nothing,
        texts=texts,
    )


def _kept(prompt: str, text: str) -> SampleText:
    return SampleText(
        prompt, f"Review {prompt}:", text, reward=1.0, proxy_reward=None, kl=0.1, length=60
    )


def _point(table: PromptTable, hparams: dict[str, float]) -> Point:
    return table.point(
        experiment="sweep-made-up", hparams=hparams, config_sha="c", git_sha="g", seconds=1.0
    )


if __name__ == "__main__":
    main()
