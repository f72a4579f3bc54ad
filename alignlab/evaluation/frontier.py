"""The reward-KL frontier: the reward an objective reaches within a KL budget, and how sure that is.

For each seed, the points of all runs and checkpoints and the reference's own point (0, R_ref) span
an upper concave hull; its chords are reached by mixing two policies per prompt. The best of noisy
points is biased upwards, so the hull's vertices are chosen on one half of the prompts and reported
on the other, and vice versa (cross-fitting): the result on a prompt comes from a policy that was
chosen without this prompt.

Intervals count two sources: seeds (Student's t over the seeds' values) and prompts (a bootstrap
that repeats the whole procedure, choice of vertices included, with the same resampled prompts for
policies, reference and oracle). The squares of the two half-widths add up; where seeds and prompts
interact they are counted twice, so the interval errs on the wide side. With a single seed only the
prompts are counted, and ``n_seeds`` says so.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignlab.errors import DataError
from alignlab.evaluation.best_of_n import best_of_n_curve
from alignlab.evaluation.comparison import (
    Replicates,
    against,
    compare,
    hypervolumes,
    interval,
)
from alignlab.evaluation.fixed_points import proxy_optima
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.evaluation.oracle import OracleCurve, reference_reward
from alignlab.evaluation.power import Spread
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import PromptTable
from alignlab.results.statistics import Floats, half_weights, halves
from alignlab.results.tables import (
    BUDGETS,
    Against,
    Comparison,
    FrontierRow,
    Hypervolume,
    OwnOptimum,
)

REPLICATES = 1000


class Impossible(NamedTuple):
    """An efficiency above 1 beyond its interval: nothing beats the optimum.

    It means that rewards, prompts, sampling settings or references were mixed up.
    """

    objective: str
    kl_budget: float
    efficiency: float
    lo: float
    hi: float

    def __str__(self) -> str:
        """One phrase for a message."""
        interval = f"{self.efficiency:.3f} [{self.lo:.3f}, {self.hi:.3f}]"
        return f"{self.objective} at KL {self.kl_budget:g} has {interval}"


class Frontier(NamedTuple):
    """Rows of ``frontier.csv``; impossible efficiencies are left empty and listed here.

    It also holds comparisons of the trained objectives at the table's budgets, each with the spread
    behind its interval if that was computed here. ``against`` and ``own_optima`` are filled if a
    base was named.
    """

    rows: list[FrontierRow]
    impossible: list[Impossible]
    comparisons: Mapping[Comparison, Spread | None] = MappingProxyType({})
    hypervolumes: Sequence[Hypervolume] = ()
    against: Sequence[Against] = ()
    own_optima: Sequence[OwnOptimum] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """C points of one seed of one objective on the same P prompts: ``kl``, ``reward`` [C, P]."""

    kl: Floats
    reward: Floats
    seed: int = 0


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval."""

    value: float
    lo: float
    hi: float


def build_frontier(
    tables: Sequence[PromptTable],
    pool: Pool,
    *,
    budgets: Sequence[float] = BUDGETS,
    replicates: int = REPLICATES,
    seed: int = 0,
    base: str | None = None,
) -> Frontier:
    """Rows for every trained objective, then best-of-n, the oracle and the reference.

    Args:
        tables: Per-prompt results of every checkpoint, all on the same prompts.
        pool: Samples of the reference on (at least) these prompts.
        budgets: KL in nats per completion, each > 0.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
        base: The trained objective to compare every other with, in shares of the optimum's gain.

    Raises:
        DataError: Tables on different prompts, or prompts that the pool lacks.
    """
    prompt_ids = common_prompts(tables, pool)
    bench = _Bench(pool.take(prompt_ids), np.asarray(budgets, float), replicates, seed)
    rows = []
    trained = {}
    for objective, curves in sorted(_curves(tables, prompt_ids).items()):
        trained[objective] = bench.replicates(curves)
        rows += bench.rows(objective, trained[objective])
    for objective, by_proxy in (("best_of_n", True), ("best_of_n_gt", False)):
        if bench.pool.proxy is not None or not by_proxy:
            sampled = best_of_n_curve(bench.pool, by_proxy=by_proxy)
            if sampled:
                kl = np.stack([point.kl for point in sampled])
                reward = np.stack([point.reward for point in sampled])
                rows += bench.rows(objective, bench.replicates([Curve(kl=kl, reward=reward)]))
    if bench.pool.proxy is not None:
        ends = proxy_optima(bench.pool)
        if ends:
            kl, reward = np.stack([end.kl for end in ends]), np.stack([end.reward for end in ends])
            rows += bench.rows("oracle_proxy", bench.replicates([Curve(kl=kl, reward=reward)]))
    rows += bench.oracle_rows() + bench.bound_rows() + bench.reference_rows()
    listed = [budget for budget in BUDGETS if budget in budgets]
    n, reference = bench.n_prompts, bench.reference_means
    known = [b for b in listed if bench.optimum_is_known(b)] if base else []
    gains = bench.optimal_means - reference[:, None]
    return _without_impossible(rows)._replace(
        comparisons=compare(trained, budgets, listed, n),
        hypervolumes=hypervolumes(trained, reference, budgets, listed, n),
        against=against(trained, base, gains, budgets, known, n) if base else (),
    )


def common_prompts(tables: Iterable[PromptTable], pool: Pool | None = None) -> tuple[str, ...]:
    """The prompts that every table is about, ordered by a hash of their names.

    Even and odd places of this order are the two halves: a split that no property of the prompts
    or of their file can follow.

    Raises:
        DataError: A table is about other prompts, or names one twice.
    """
    names: set[str] | None = None
    for table in tables:
        own = set(table.scores.prompt_ids)
        names = own if names is None else names
        if own != names or len(own) != len(table.scores.prompt_ids):
            raise DataError(
                f"run {table.run_id!r}, step {table.step}: evaluated on {len(own)} prompts of "
                f"which {len(own & names)} are among the {len(names)} of the other runs. "
                "Evaluate all runs on the same prompts, each once."
            )
    chosen = (pool.prompt_ids if pool else ()) if names is None else names
    if len(chosen) < 4:
        raise DataError(f"a frontier needs at least 4 prompts (two per half), got {len(chosen)}.")
    return tuple(sorted(chosen, key=lambda name: hashlib.sha256(name.encode()).digest()))


def _curves(tables: Iterable[PromptTable], prompt_ids: tuple[str, ...]) -> dict[str, list[Curve]]:
    """Each objective's curves, one per seed."""
    grouped: dict[tuple[str, int], list[PromptTable]] = defaultdict(list)
    for table in tables:
        grouped[table.objective, table.seed].append(table)
    curves: dict[str, list[Curve]] = defaultdict(list)
    for (objective, seed), own in sorted(grouped.items()):
        own.sort(key=lambda table: (table.run_id, table.step))
        kl, reward = zip(*(_aligned(table, prompt_ids) for table in own), strict=True)
        curves[objective].append(Curve(kl=np.stack(kl), reward=np.stack(reward), seed=seed))
    return dict(curves)


def _aligned(table: PromptTable, prompt_ids: tuple[str, ...]) -> tuple[Floats, Floats]:
    place = {name: i for i, name in enumerate(table.scores.prompt_ids)}
    order = [place[name] for name in prompt_ids]
    return table.scores.kl[order], table.scores.reward[order]


class _Bench:
    """The common ground of all objectives: prompts, bootstrap replicates and optimum.

    Row 0 of every replicate array is the observed sample itself.
    """

    def __init__(self, pool: Pool, budgets: Floats, replicates: int, seed: int) -> None:
        self.pool = pool
        self.budgets = budgets
        n = len(pool.prompt_ids)
        self.n_prompts = n
        self.halves = halves(n)
        self.weights = half_weights(n, replicates, seed)
        self.reference = reference_reward(pool)
        self.oracle = OracleCurve(pool, budgets)
        self.reference_means = self.weights @ self.reference / 2  # [1 + B]
        self.optimal_means = self.oracle.resampled(self.weights / 2)  # [1 + B, G]

    def replicates(self, curves: Sequence[Curve]) -> Replicates:
        """An objective's frontier in every replicate, from one curve per seed."""
        return Replicates(
            values=np.stack([self._cross_fit(curve) for curve in curves]),
            seeds=tuple(curve.seed for curve in curves),
            largest=np.array([curve.kl.mean(1).max() for curve in curves]),
        )

    def rows(self, objective: str, found: Replicates) -> list[FrontierRow]:
        """An objective's rows."""
        values = found.values
        gain = values - self.reference_means[:, None]
        efficiency = gain / (self.optimal_means - self.reference_means[:, None])
        rows = []
        for g, budget in enumerate(self.budgets):
            reached = found.largest >= budget
            row = replace(self._empty_row(objective, g), n_seeds=int(reached.sum()))
            if found.reached(budget):  # one seed alone is not the objective
                row = _with_reward(row, self._estimate(values[reached, :, g]))
                if row.oracle_reward is not None:
                    row = _with_efficiency(row, self._estimate(efficiency[reached, :, g]))
            rows.append(row)
        return rows

    def oracle_rows(self) -> list[FrontierRow]:
        """The optimum's own rows; its efficiency is 1 by definition."""
        rows = []
        for g in range(len(self.budgets)):
            row = replace(self._empty_row("oracle", g), n_seeds=1)
            if row.oracle_reward is not None:
                estimate = self._estimate(self.optimal_means[None, :, g])
                shift = row.oracle_reward - estimate.value  # the grid's error, about 1e-4
                row = _with_reward(row, Estimate(*(end + shift for end in estimate)))
                row = _with_efficiency(row, Estimate(1.0, 1.0, 1.0))
            rows.append(row)
        return rows

    def bound_rows(self) -> list[FrontierRow]:
        """The dual bound's rows: nothing is claimed below the estimate."""
        rows = []
        for g, bound in enumerate(self.oracle.bounds()):
            row = replace(self._empty_row("dual_bound", g), n_seeds=1)
            if bound is not None:
                row = _with_reward(row, Estimate(bound.reward, bound.reward, bound.limit))
            rows.append(row)
        return rows

    def reference_rows(self) -> list[FrontierRow]:
        """The reference at every budget; its efficiency is 0 by definition."""
        estimate = self._estimate(self.reference_means[None])
        rows = []
        for g in range(len(self.budgets)):
            row = replace(self._empty_row("reference", g), n_seeds=1)
            row = _with_reward(row, estimate)
            if row.oracle_reward is not None:
                row = _with_efficiency(row, Estimate(0.0, 0.0, 0.0))
            rows.append(row)
        return rows

    def _cross_fit(self, curve: Curve) -> Floats:
        """Reward at each budget, ``[1 + B, G]``.

        Walking along the hulls from the reference, both halves take their next edge when the price
        (the slope) of a nat falls to the edge's. The order of edges is known from the half that
        chose them, their length and gain from the other half, so no choice sees its own noise.
        Every place on this path is a policy: one vertex, or a mixture of two, for each half.
        """
        slopes, runs, rises = [], [], []
        for chosen, read in (self.halves, self.halves[::-1]):
            vertices = hull_vertices(*self._points(curve, chosen))
            run, rise = _edges(vertices, *self._points(curve, chosen))
            slopes.append(np.where(run > 0, rise / np.where(run > 0, run, 1.0), -np.inf))
            run, rise = _edges(vertices, *self._points(curve, read))
            runs.append(run / 2)
            rises.append(rise / 2)
        order = np.argsort(-np.hstack(slopes), axis=1, kind="stable")
        kl, reward = (
            np.take_along_axis(np.hstack(steps), order, 1).cumsum(1) for steps in (runs, rises)
        )
        origin = np.zeros((len(kl), 1))
        gain = interpolate(np.hstack([origin, kl]), np.hstack([origin, reward]), self.budgets)
        return self.reference_means[:, None] + gain

    def _points(self, curve: Curve, half: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """KL and reward ``[1 + B, 1 + C]`` of one half's prompts, the reference first."""
        weights = self.weights[:, half]
        origin = np.zeros((len(weights), 1))
        reference = (weights @ self.reference[half])[:, None]
        return (
            np.hstack([origin, weights @ curve.kl[:, half].T]),
            np.hstack([reference, weights @ curve.reward[:, half].T]),
        )

    def optimum_is_known(self, budget: float) -> bool:
        """Whether the pool represents the optimum at ``budget`` reliably."""
        solved = self.oracle.optima[self.budgets.tolist().index(budget)]
        return solved is not None and solved.reliable

    def _empty_row(self, objective: str, g: int) -> FrontierRow:
        solved = self.oracle.optima[g]
        reliable = solved is not None and solved.reliable
        return FrontierRow(
            objective=objective,
            kl_budget=float(self.budgets[g]),
            oracle_reward=float(solved.reward.mean()) if solved and reliable else None,
            oracle_ess=solved.ess_reached if solved else None,
            n_prompts=self.n_prompts,
        )

    def _estimate(self, replicates: Floats) -> Estimate:
        """Mean over seeds of ``[S, 1 + B]`` replicates, with both sources of error."""
        return Estimate(*interval([replicates], self.n_prompts))


def _edges(vertices: NDArray[np.int64], kl: Floats, reward: Floats) -> tuple[Floats, Floats]:
    """KL and reward ``[B, V - 1]`` from each vertex to the next, on the prompts of ``kl``."""
    return (
        np.diff(np.take_along_axis(kl, vertices, 1), axis=1),
        np.diff(np.take_along_axis(reward, vertices, 1), axis=1),
    )


def _with_reward(row: FrontierRow, estimate: Estimate) -> FrontierRow:
    return replace(row, reward=estimate.value, reward_lo=estimate.lo, reward_hi=estimate.hi)


def _with_efficiency(row: FrontierRow, estimate: Estimate) -> FrontierRow:
    return replace(
        row,
        oracle_efficiency=estimate.value,
        efficiency_lo=estimate.lo,
        efficiency_hi=estimate.hi,
    )


def _without_impossible(rows: list[FrontierRow]) -> Frontier:
    checked, impossible = [], []
    for row in rows:
        value, lo, hi = row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi
        if value is not None and lo is not None and hi is not None and lo > 1:
            impossible.append(Impossible(row.objective, row.kl_budget, value, lo, hi))
            row = replace(row, oracle_efficiency=None, efficiency_lo=None, efficiency_hi=None)
        checked.append(row)
    return Frontier(checked, impossible)
