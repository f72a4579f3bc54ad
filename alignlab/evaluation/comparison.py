"""Is one objective above another? Paired differences of frontiers.

Two frontiers are compared on the same prompts (the same bootstrap replicates for both) and, where
both have them, seed by seed: what makes a prompt or a seed easy for both does not blur the
difference. So intervals of two rewards may overlap where that of their difference excludes 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from alignlab.results.statistics import Floats, t_quantile
from alignlab.results.tables import Comparison, Hypervolume


@dataclass(frozen=True, kw_only=True, eq=False)
class Replicates:
    """An objective's frontier in every replicate; row 0 is the observed sample itself.

    Args:
        values: Reward at each budget, ``[S, 1 + B, G]``.
        seeds: Names of the S seeds.
        largest: Largest KL that each seed reached.
    """

    values: Floats
    seeds: tuple[int, ...]
    largest: Floats

    def reached(self, budget: float) -> list[int]:
        """Places of the seeds that reached ``budget``; none, if most did not."""
        places = np.flatnonzero(self.largest >= budget).tolist()
        return places if 2 * len(places) > len(self.seeds) else []


def compare(
    found: Mapping[str, Replicates],
    grid: Sequence[float],
    budgets: Sequence[float],
    n_prompts: int,
) -> list[Comparison]:
    """Every two objectives at every budget that both reach.

    Args:
        found: The objectives' frontiers.
        grid: The G budgets of their last axis.
        budgets: Those to compare at.
        n_prompts: Behind them.
    """
    rows = []
    for first, second in combinations(sorted(found), 2):
        for budget in budgets:
            g = list(grid).index(budget)
            pair = found[first], found[second]
            reached = [own.reached(budget) for own in pair]
            if all(reached):
                seeds = [{own.seeds[i]: i for i in r} for own, r in zip(pair, reached, strict=True)]
                both = sorted(seeds[0].keys() & seeds[1].keys())
                at = [own.values[:, :, g] for own in pair]
                if both:
                    a = at[0][[seeds[0][s] for s in both]]
                    b = at[1][[seeds[1][s] for s in both]]
                    mean, lo, hi = interval([a - b], n_prompts)
                else:
                    a, b = at[0][reached[0]], at[1][reached[1]]
                    mean, lo, hi = interval([a, -b], n_prompts)
                rows.append(
                    Comparison(
                        objective=first,
                        other=second,
                        kl_budget=float(budget),
                        difference=mean,
                        lo=lo,
                        hi=hi,
                        n_seeds=len(both) or min(map(len, reached)),
                        n_prompts=n_prompts,
                    )
                )
    return rows


def hypervolumes(
    found: Mapping[str, Replicates],
    reference: Floats,
    grid: Sequence[float],
    budgets: Sequence[float],
    n_prompts: int,
) -> list[Hypervolume]:
    """The areas up to each of ``budgets``, of the objectives that reach it.

    Args:
        found: The objectives' frontiers.
        reference: The reference's reward in every replicate, ``[1 + B]``.
        grid: The G budgets of the frontiers' last axis, ascending.
        budgets: The upper ends; areas compare only up to the same one.
        n_prompts: Behind them.
    """
    rows = []
    for top, (name, own) in product(budgets, sorted(found.items())):
        reached = own.reached(top)
        if not reached:
            continue
        inside = [g for g, budget in enumerate(grid) if budget <= top]
        kl = np.array([0.0, *(grid[g] for g in inside)])
        gain = own.values[reached][:, :, inside] - reference[:, None]
        gain = np.concatenate([np.zeros((*gain.shape[:2], 1)), gain], axis=2)
        area = ((gain[:, :, 1:] + gain[:, :, :-1]) / 2 * np.diff(kl)).sum(2)
        mean, lo, hi = interval([area], n_prompts)
        rows.append(
            Hypervolume(
                objective=name, kl_max=top, hypervolume=mean, lo=lo, hi=hi, n_seeds=len(area)
            )
        )
    return rows


def interval(parts: Sequence[Floats], n_prompts: int) -> tuple[float, float, float]:
    """Sum of the parts' means over seeds and the ends of its 95 % interval; parts ``[S, 1 + B]``.

    Prompts by the bootstrap, seeds by Student's t; the squares of the half-widths add up.
    """
    means = sum(part.mean(0) for part in parts)
    assert isinstance(means, np.ndarray)
    prompts = t_quantile(n_prompts - 1) * float(means[1:].std(ddof=1))
    seeds = [
        t_quantile(len(part) - 1) * float(part[:, 0].std(ddof=1)) / math.sqrt(len(part))
        for part in parts
        if len(part) > 1
    ]
    half = math.hypot(prompts, *seeds)
    return float(means[0]), float(means[0]) - half, float(means[0]) + half
