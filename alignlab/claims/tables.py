"""What rules read: rows of committed tables by their cells, and runs by seed."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from alignlab.claims.finding import Measured, Values
from alignlab.errors import DataError
from alignlab.evaluation.effects import last_points
from alignlab.evaluation.hull import hull_vertices
from alignlab.results.csv_tables import read_table
from alignlab.results.prompt_tables import read_prompt_tables
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.statistics import Floats
from alignlab.results.tables import Point, read_points

Found = TypeVar("Found", bound=Sized)
SEED = re.compile(r"-s(\d+)$")  # at the end of a run's name


class Missing(Exception):
    """A table is missing or lacks the rows of a claim: the runs have not been made."""


class NotReached(Exception):
    """The runs exist, but none reaches the KL of the comparison."""


class OfStage(str):
    """Stands for every name that a stage's runs have in a table: ``dpo``, ``dpo-beta0.5``."""

    __slots__ = ()


class Folder:
    """A results folder, as rules read it: methods raise ``Missing``, those at a KL ``NotReached``.

    Args:
        path: The folder; what a rule asks of it is read then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, table: str, **cells: object) -> list[dict[str, str]]:
        """Rows of a table whose cells have these values; a float compares as a number."""
        found = [
            row
            for row in read_table(self._there(table))
            if all(_is(row.get(name), value) for name, value in cells.items())
        ]
        return _some(found, self.path / table, cells)

    def numbers(self, table: str, column: str, **cells: object) -> list[float]:
        """A column of those rows."""
        return [float(row[column]) for row in self.rows(table, **cells)]

    def by_seed(
        self, table: str, column: str, *, run: str = "", name: str = "run", **cells: object
    ) -> Values:
        """A column of rows that name a run, by the seed that each run's name ends in.

        Args:
            table: Name of the file.
            column: The column.
            run: What the run's name begins with.
            name: The column that has the run's name.
            cells: What the rows have elsewhere.

        Raises:
            DataError: Several rows have one seed.
        """
        asked = {name: f"{run}...", **cells}
        found: dict[int, float] = {}
        for row in self.rows(table, **cells):
            if row[name].startswith(run):
                seed = seed_of(row[name])
                if seed in found:
                    raise _several(self.path / table, {**asked, "seed": seed})
                found[seed] = float(row[column])
        return _some(found, self.path / table, asked)

    def measured(
        self, table: str, column: str, *, ends: str = "", runs: str = "n_seeds", **cells: Any
    ) -> Measured:
        """The number of the one row with these values, and its interval.

        Args:
            table: Name of the file.
            column: The number; where its cell is empty, nothing has reached it.
            ends: What the names of the columns ``lo`` and ``hi`` begin with.
            runs: The column of the number of runs.
            cells: What the row has elsewhere.

        Raises:
            DataError: There are several such rows.
        """
        row, *others = self.rows(table, **cells)
        if others:
            raise _several(self.path / table, cells)
        if not row[column]:
            raise NotReached
        lo, hi = row[f"{ends}lo"], row[f"{ends}hi"]
        return Measured(
            float(row[column]),
            float(lo) if lo else -math.inf,
            float(hi) if hi else math.inf,
            int(row[runs]),
        )

    def difference(
        self, table: str, first: str, other: str, *, name: str = "objective", **cells: Any
    ) -> Measured:
        """``first`` less ``other`` in a table that has each pair once, in either order.

        Args:
            table: Name of the file, with the columns ``difference`` and ``other``.
            first: What ``name`` has.
            other: What is subtracted.
            name: The column of the first.
            cells: What the row has elsewhere.
        """
        try:
            return self.measured(table, "difference", **{name: first, "other": other}, **cells)
        except Missing:
            turned = self.measured(table, "difference", **{name: other, "other": first}, **cells)
            return turned.turned()

    def _there(self, table: str) -> Path:
        if not (self.path / table).exists():
            raise Missing(f"{self.path / table}: no such table.")
        return self.path / table

    def points(self, objective: str, **hparams: object) -> list[Point]:
        """The checkpoints of an objective's runs with these settings."""
        found = [
            point
            for point in read_points(self._there(POINTS))
            if point.objective == objective and hparams.items() <= point.hparams.items()
        ]
        return _some(found, self.path / POINTS, {"objective": objective, **hparams})

    def ends(self, column: str, objective: str, **hparams: object) -> Values:
        """A column of these runs' last checkpoints, by seed."""
        last = last_points(self.points(objective, **hparams))[objective]
        return {point.seed: float(getattr(point, column)) for point in last}

    def objectives(self) -> set[str]:
        """Those that ``points.csv`` has."""
        return {point.objective for point in read_points(self._there(POINTS))}

    def reward_at(self, kl: float, start: float, objective: str, **hparams: object) -> Values:
        """Reward at a KL on each seed's own upper hull; seeds that do not reach it are left out.

        Args:
            kl: Nats per completion.
            start: Reward of the reference, at KL 0.
            objective: As in ``points.csv``.
            hparams: Settings of its runs.
        """
        return self.hull_at(kl, start, "reward", start, objective, **hparams)

    def hull_at(
        self, kl: float, start: float, column: str, value: float, objective: str, **hparams: object
    ) -> Values:
        """A column of ``points.csv`` at a KL, between the checkpoints on each seed's hull.

        Args:
            kl: Nats per completion.
            start: Reward of the reference, at KL 0.
            column: The column.
            value: What the reference has in it; where this is not known, NaN leaves out seeds whose
                hull has no checkpoint before this KL.
            objective: As in ``points.csv``.
            hparams: Settings of its runs.
        """
        found = {}
        for seed, own in _grouped(self.points(objective, **hparams)).items():
            x, _, place = _hull(own, start)
            if x[-1] >= kl:
                known = np.array([value, *(getattr(point, column) for point in own)])[place]
                found[seed] = float(np.interp(kl, x, known))
        return _reached({seed: value for seed, value in found.items() if not math.isnan(value)})

    def reward_within(self, kl: float, start: float, objective: str, **hparams: object) -> Values:
        """The largest reward up to a KL on each seed's hull, also of seeds that end before it.

        Args:
            kl: Nats per completion.
            start: Reward of the reference, at KL 0.
            objective: As in ``points.csv``.
            hparams: Settings of its runs.
        """
        found = {}
        for seed, own in _grouped(self.points(objective, **hparams)).items():
            x, y, _ = _hull(own, start)
            found[seed] = max(float(np.interp(kl, x, y)), float(y[x <= kl].max()))
        return found

    def measure_at(
        self, kl: float, start: float, measure: str, objective: str, **hparams: object
    ) -> Values:
        """A measure of per-prompt tables at a KL, on the line through each run's checkpoints.

        Args:
            kl: Nats per completion; runs that do not reach it are left out.
            start: The reference's measure, at KL 0.
            measure: As in ``PromptScores``.
            objective: As in ``points.csv``.
            hparams: Settings of its runs, one run a seed.
        """
        found: dict[int, float] = {}
        for run, seed in {p.run_id: p.seed for p in self.points(objective, **hparams)}.items():
            means = [table.scores.means() for table in read_prompt_tables(table_of(self.path, run))]
            known = sorted((mean["kl"], mean[measure]) for mean in means if measure in mean)
            if known and known[-1][0] >= kl:
                x, y = zip((0.0, start), *known, strict=True)
                found[seed] = float(np.interp(kl, x, y))
        return _reached(found)


def seed_of(run: str) -> int:
    """The seed in a run's name; 0 where it has none."""
    match = SEED.search(run)
    return int(match[1]) if match else 0


def paired(values: Values, others: Values, of: Callable[[float, float], float]) -> Values:
    """``of(value, other)`` of the seeds that both have.

    Raises:
        NotReached: No seed is in both.
    """
    return _reached({s: of(value, others[s]) for s, value in values.items() if s in others})


def less(values: Values, others: Values) -> Values:
    """Differences of the seeds that both have; raises as ``paired`` does."""
    return paired(values, others, lambda a, b: a - b)


def _grouped(points: list[Point]) -> dict[int, list[Point]]:
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(point.seed, []).append(point)
    return groups


def _hull(own: Sequence[Point], start: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """KL, reward and place of the vertices, where place 0 is the reference."""
    x = np.array([0.0, *(point.kl for point in own)])
    y = np.array([start, *(point.reward for point in own)])
    place = hull_vertices(x[None], y[None])[0]
    return x[place], y[place], place


def _is(cell: str | None, value: object) -> bool:
    if isinstance(value, OfStage):
        return cell is not None and f"{cell}-".startswith(f"{value}-")
    if isinstance(value, float):
        return bool(cell) and float(cell or 0) == value
    return cell == str(value)


def _several(path: Path, asked: Mapping[str, object]) -> DataError:
    return DataError(
        f"{path}: several rows with {json.dumps(asked, default=str)}, of which a claim reads one. "
        "Give the runs of one setting a stage of their own."
    )


def _reached(found: Values) -> Values:
    if not found:
        raise NotReached
    return found


def _some(found: Found, path: Path, asked: Mapping[str, object]) -> Found:
    if not found:
        raise Missing(f"{path}: nothing with {json.dumps(asked, default=str)}.")
    return found
