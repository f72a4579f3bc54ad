"""Is one objective above another? Paired differences of frontiers.

Two frontiers are compared on the same prompts (the same bootstrap replicates for both) and, where
both have them, seed by seed, so what makes a prompt or a seed easy for both cancels. The interval
of the difference may therefore exclude 0 although the intervals of the two rewards overlap.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from alignlab.evaluation.power import Spread, enough
from alignlab.results.statistics import Floats, holm, t_quantile
from alignlab.results.tables import PRIMARY, Against, Comparison, Hypervolume

LEVEL = 0.05  # of the tests against a base, all together
SMALLEST = 1e-12  # p-value; what is smaller is reported as this


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
) -> dict[Comparison, Spread]:
    """Every two objectives at every budget that both reach, and the spread behind each interval.

    Args:
        found: The objectives' frontiers.
        grid: The G budgets of their last axis.
        budgets: Those to compare at.
        n_prompts: Behind them.
    """
    rows = {}
    for first, second in combinations(sorted(found), 2):
        for budget in budgets:
            parts = _parts(found[first], found[second], list(grid).index(budget), budget)
            if parts:
                mean, lo, hi = interval(parts, n_prompts)
                spread = spread_of(parts, n_prompts)
                row = Comparison(
                    objective=first,
                    other=second,
                    kl_budget=float(budget),
                    difference=mean,
                    lo=lo,
                    hi=hi,
                    n_seeds=spread.seeds,
                    n_prompts=n_prompts,
                )
                rows[row] = spread
    return rows


def _parts(first: Replicates, second: Replicates, g: int, budget: float) -> list[Floats]:
    """What adds up to a difference: one part seed by seed, or two of other seeds; or none."""
    reached = [own.reached(budget) for own in (first, second)]
    if not all(reached):
        return []
    a, b = first.values[:, :, g], second.values[:, :, g]
    seeds = [
        {own.seeds[i]: i for i in places}
        for own, places in zip((first, second), reached, strict=True)
    ]
    both = sorted(seeds[0].keys() & seeds[1].keys())
    if both:
        return [a[[seeds[0][s] for s in both]] - b[[seeds[1][s] for s in both]]]
    return [a[reached[0]], -b[reached[1]]]


def against(
    found: Mapping[str, Replicates],
    base: str,
    gains: Floats,
    grid: Sequence[float],
    budgets: Sequence[float],
    n_prompts: int,
) -> list[Against]:
    """Every objective against ``base``, in shares of the optimum's gain; tests at ``PRIMARY`` only.

    Args:
        found: The objectives' frontiers, the base's among them.
        base: Name of the objective to compare with.
        gains: Reward of the optimum less that of the reference, ``[1 + B, G]``.
        grid: The G budgets.
        budgets: Those to compare at, where the optimum is known.
        n_prompts: Behind them.
    """
    rows: list[Against] = []
    spreads: dict[int, Spread] = {}  # of the tests, by the place of their row
    for budget, name in product(budgets, sorted(found.keys() - {base})):
        g = list(grid).index(budget)
        rewards = _parts(found[name], found[base], g, budget)
        parts = [part / gains[:, g] for part in rewards]
        row = Against(objective=name, base=base, kl_budget=budget, n_prompts=n_prompts)
        if parts:
            mean, lo, hi = interval(parts, n_prompts)
            spread = spread_of(parts, n_prompts)
            row = replace(row, difference=mean, lo=lo, hi=hi, n_seeds=spread.seeds)
            if budget == PRIMARY:
                row, spreads[len(rows)] = replace(row, p=p_value(parts, n_prompts)), spread
        rows.append(row)
    adjusted = holm([p for i in spreads if (p := rows[i].p) is not None])
    for (i, spread), p in zip(spreads.items(), adjusted, strict=True):
        strictest = 1 - LEVEL / len(spreads)
        needed = None if p < LEVEL else enough(spread, confidence=strictest).seeds
        rows[i] = replace(rows[i], p_holm=p, seeds_needed=needed)
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
    means = _means(parts)
    half = _half(parts, n_prompts, t_quantile)
    return float(means[0]), float(means[0]) - half, float(means[0]) + half


def p_value(parts: Sequence[Floats], n_prompts: int) -> float:
    """The two-sided p-value of a difference of 0: the level at which ``interval`` just touches 0.

    The bootstrap gives the standard error over prompts and no count of replicates, so the p-value
    has no smallest step; 1,000 replicates know that error to 2 %.
    """
    size = abs(float(_means(parts)[0]))

    def beyond(log_p: float) -> float:
        """How far an interval of level 1 - p reaches beyond 0."""
        return _half(parts, n_prompts, lambda df: -float(stdtrit(df, math.exp(log_p) / 2))) - size

    smallest = math.log(SMALLEST)
    return math.exp(brentq(beyond, smallest, 0.0)) if beyond(smallest) > 0 else SMALLEST


def _means(parts: Sequence[Floats]) -> Floats:
    """Sum of the parts' means over seeds, ``[1 + B]``."""
    means = sum(part.mean(0) for part in parts)
    assert isinstance(means, np.ndarray)
    return means


def _half(parts: Sequence[Floats], n_prompts: int, quantile: Callable[[float], float]) -> float:
    """Half of the interval whose ends lie ``quantile(degrees of freedom)`` standard errors off."""
    prompts = quantile(n_prompts - 1) * float(_means(parts)[1:].std(ddof=1))
    seeds = [
        quantile(len(part) - 1) * float(part[:, 0].std(ddof=1)) / math.sqrt(len(part))
        for part in parts
        if len(part) > 1
    ]
    return math.hypot(prompts, *seeds)


def spread_of(parts: Sequence[Floats], n_prompts: int) -> Spread:
    """What ``interval`` makes its half-widths of; parts ``[S, 1 + B]``.

    Two parts of other seeds count as pairs of the smaller number of them. The bootstrap's variance
    of single seeds and that of their mean tell prompts from the interaction of prompts and seeds.
    """
    seeds = min(map(len, parts))
    squares = [float(part[:, 0].var(ddof=1)) for part in parts if len(part) > 1]
    means = _means(parts)
    interactions = [_interaction(part) for part in parts]
    averaged = sum(each / len(part) for each, part in zip(interactions, parts, strict=True))
    prompts = max(0.0, float(means[1:].var(ddof=1)) - averaged)
    return Spread(
        difference=float(means[0]),
        seeds=seeds,
        seed_sd=math.sqrt(sum(squares)) if seeds > 1 else 0.0,
        prompts=n_prompts,
        prompt_sd=math.sqrt(prompts * n_prompts),
        interaction_sd=math.sqrt(sum(interactions) * n_prompts),
    )


def _interaction(part: Floats) -> float:
    """Variance of one seed's mean over prompts that the mean over endless seeds does not have.

    A seed's bootstrap variance is a + b, that of the mean over S seeds a + b / S: returns b.
    """
    if len(part) < 2:
        return 0.0
    alone = float(part[:, 1:].var(axis=1, ddof=1).mean())
    together = float(part[:, 1:].mean(0).var(ddof=1))
    return max(0.0, alone - together) * len(part) / (len(part) - 1)  # < 0 only by rounding
