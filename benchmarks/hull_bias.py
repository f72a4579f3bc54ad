"""How far shares of the optimum's gain depend on which points the hull has, and on how it is made.

    python benchmarks/hull_bias.py results/study [--kl 1] [--splits 20]

A row for each objective. *reported*: the share that ``frontier.csv`` has, whose vertices are chosen
on one half of the prompts and read on the other. *all prompts*: vertices are chosen and read on all
of them. *other halves*: mean and standard deviation over other ways to halve the prompts. *one
setting*: only runs of the setting that was chosen for this KL, in the seeds that reach it. *optimum
there*: the share of an optimal policy that is seen only at the KLs of the hull's vertices. The
folder needs its pool of reference samples.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from alignlab.evaluation.frontier import build_frontier, common_prompts
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.evaluation.oracle import optimum_at_kl, reference_reward
from alignlab.report.read import read_results
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import PromptTable


def shares(tables: Sequence[PromptTable], pool: Pool, kl: float) -> dict[str, float]:
    """Each trained objective's share, as the frontier has it."""
    rows = build_frontier(tables, pool, budgets=[kl], replicates=2).rows
    trained = {table.objective for table in tables}
    found = {row.objective: row.oracle_efficiency for row in rows if row.objective in trained}
    return {name: share for name, share in found.items() if share is not None}


def without_halves(
    tables: Sequence[PromptTable], pool: Pool, kl: float
) -> dict[str, tuple[float, float]]:
    """Each objective's share on hulls of all prompts, and the optimum's at the KLs of these hulls.

    Mean over the seeds that reach ``kl``.
    """
    reference = float(reference_reward(pool).mean())
    gain = _gain(pool, kl, reference)
    grouped: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(lambda: [(0.0, 0.0)])
    for table in tables:
        means = table.scores.means()
        point = (means["kl"], means["reward"] - reference)
        grouped[table.objective, table.seed].append(point)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (name, _), points in sorted(grouped.items()):
        at, own = np.array(points).T[:, None]
        if at.max() < kl:
            continue
        hull = hull_vertices(at, own)[0]
        k, reward = at[:, hull], own[:, hull]
        right = int(np.argmax(k[0] >= kl))  # the edge that holds this KL
        edge = k[:, right - 1 : right + 1]
        best = np.array([[_gain(pool, float(each), reference) for each in edge[0]]])
        budget = np.array([kl])
        share = float(interpolate(k, reward, budget)[0, 0]) / gain
        found[name].append((share, float(interpolate(edge, best, budget)[0, 0]) / gain))
    return {name: (mean(x for x, _ in own), mean(y for _, y in own)) for name, own in found.items()}


def _gain(pool: Pool, kl: float, reference: float) -> float:
    solved = optimum_at_kl(pool, kl) if kl > 0 else None
    if solved is None and kl > 0:
        raise SystemExit(f"the pool has too few samples for the optimum at KL {kl:g}.")
    return float(solved.reward.mean()) - reference if solved else 0.0


def renamed(
    tables: Sequence[PromptTable], pool: Pool, suffix: str
) -> tuple[list[PromptTable], Pool]:
    """Everything with other names of prompts: the halves follow from a hash of the names."""

    def new(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{name}{suffix}" for name in names)

    scores = [replace(table.scores, prompt_ids=new(table.scores.prompt_ids)) for table in tables]
    others = [replace(table, scores=own) for table, own in zip(tables, scores, strict=True)]
    return others, replace(pool, prompt_ids=new(pool.prompt_ids))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--kl", type=float, default=1.0)
    parser.add_argument("--splits", type=int, default=20)
    args = parser.parse_args()
    found = read_results([args.results])
    if found.pool is None:
        raise SystemExit(f"{args.results}: no pool.parquet. Run the experiment's stage 'pool'.")
    tables, kl = found.tables, args.kl
    pool = replace(found.pool.take(common_prompts(tables, found.pool)), proxy=None)
    reported, everything = shares(tables, pool, kl), without_halves(tables, pool, kl)
    others = [shares(*renamed(tables, pool, f"/{k}"), kl) for k in range(args.splits)]
    one = shares([table for table in tables if f"-best{kl:g}-" in table.run_id], pool, kl)
    print(f"{'':14}reported  all prompts  other halves   one setting  optimum there")
    for name, share in sorted(reported.items(), key=lambda item: -item[1]):
        split = [each[name] for each in others]
        alone = f"{one[name]:.3f}" if name in one else "-"
        whole, best = everything[name]
        print(f"{name:14}{share:8.3f}{whole:13.3f}{mean(split):9.3f} ± {stdev(split):.3f}", end="")
        print(f"{alone:>14}{best:15.3f}")


if __name__ == "__main__":
    main()
