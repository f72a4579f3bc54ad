"""What rules read: rows of committed tables by their cells, and runs by seed."""

import json
import re
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np

from alignlab.claims.finding import Values
from alignlab.evaluation.effects import last_points
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.results.csv_tables import read_table
from alignlab.results.prompt_tables import read_prompt_tables
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.tables import Point, read_points

Found = TypeVar("Found", bound=Sized)
SEED = re.compile(r"-s(\d+)$")  # at the end of a run's name


class Missing(Exception):
    """A table is not there, or has nothing of what is asked: the runs have not been made."""


class NotReached(Exception):
    """The runs are there, but none reaches what they would be compared at."""


class Folder:
    """A results folder, as rules read it: methods raise ``Missing``, those at a KL ``NotReached``.

    Args:
        path: The folder; what a rule asks of it is read then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, table: str, **cells: object) -> list[dict[str, str]]:
        """Rows of a table whose cells have these values."""
        asked = {name: str(value) for name, value in cells.items()}
        found = [r for r in read_table(self._there(table)) if asked.items() <= r.items()]
        return _some(found, self.path / table, asked)

    def numbers(self, table: str, column: str, **cells: object) -> list[float]:
        """A column of those rows."""
        return [float(row[column]) for row in self.rows(table, **cells)]

    def by_seed(self, table: str, column: str, *, run: str = "", **cells: object) -> Values:
        """A column of rows that have a column ``run``, by the seed that each run's name ends in.

        Args:
            table: Name of the file.
            column: The column.
            run: What the run's name begins with.
            cells: What the rows have elsewhere.
        """
        rows = [row for row in self.rows(table, **cells) if row["run"].startswith(run)]
        found = {seed_of(row["run"]): float(row[column]) for row in rows}
        return _some(found, self.path / table, {"run": run, **cells})

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

    def reward_at(self, kl: float, start: float, objective: str, **hparams: object) -> Values:
        """Reward at a KL on each seed's own upper hull; seeds that do not reach it are left out.

        Args:
            kl: Nats per completion.
            start: Reward of the reference, at KL 0.
            objective: As in ``points.csv``.
            hparams: Settings of its runs.
        """
        found = {}
        for seed, own in _grouped(self.points(objective, **hparams)).items():
            x = np.array([[0.0, *(point.kl for point in own)]])
            y = np.array([[start, *(point.reward for point in own)]])
            if x.max() >= kl:
                hull = hull_vertices(x, y)[0]
                found[seed] = float(interpolate(x[:, hull], y[:, hull], np.array([kl]))[0, 0])
        return _reached(found)

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


def _reached(found: Values) -> Values:
    if not found:
        raise NotReached
    return found


def _some(found: Found, path: Path, asked: Mapping[str, object]) -> Found:
    if not found:
        raise Missing(f"{path}: nothing with {json.dumps(asked, default=str)}.")
    return found
