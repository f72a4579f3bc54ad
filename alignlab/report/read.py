"""Reading results folders back: points, their per-prompt tables and the oracle's pool."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignlab.errors import DataError
from alignlab.evaluation.frontier import Frontier
from alignlab.evaluation.oracle import reference_reward
from alignlab.files import DONE, belongs
from alignlab.results.csv_tables import Row, read_typed
from alignlab.results.pool import POOL_NAME, POOL_RECORD, Pool
from alignlab.results.prompt_tables import PromptTable, read_prompt_tables
from alignlab.results.run_folder import STAGES
from alignlab.results.run_records import POINTS, damage, record_of, table_of
from alignlab.results.statistics import clustered_se
from alignlab.results.tables import (
    COMMANDS,
    Against,
    Comparison,
    Hypervolume,
    OwnOptimum,
    Point,
    read_frontier,
    read_points,
)

FRONTIER, CURVES = "frontier.csv", "curves.csv"
COMPARISONS, HYPERVOLUMES = "comparisons.csv", "hypervolumes.csv"
AGAINST, OWN_OPTIMA = "against.csv", "own_optima.csv"


class Results(NamedTuple):
    """What a frontier is made of; without a pool, the frontier as it was drawn last."""

    points: list[Point]
    tables: list[PromptTable]
    pool: Pool | None
    drawn: Frontier | None = None


def read_results(folders: Sequence[Path]) -> Results:
    """All points of ``folders``, the per-prompt table of each, and the pool.

    The pool is ``pool.parquet`` in the folder itself or below its ``stages/``; one that has none of
    the evaluated prompts is left out where there is another. Several folders need the same prompts,
    reference and reward; the first pool is used, and another one must agree with it on the
    reference's mean reward. A single folder without a pool, as those that are kept in git, has the
    frontier that was drawn from the same points, if its tables hold one.

    Raises:
        DataError: A folder without points, a point without per-prompt rows or with other ones, a
            checkpoint that is in two folders, no pool and no table that was drawn with it, or two
            pools that disagree.
    """
    points: list[Point] = []
    tables: list[PromptTable] = []
    pools: list[tuple[Path, Pool]] = []
    where: dict[tuple[str, str, int], Path] = {}
    for folder in folders:
        own = read_points(folder / POINTS)
        for point in own:
            key = (point.objective, point.run_id, point.step)
            if key in where:
                raise DataError(
                    f"{folder}: {point.run_id!r}, step {point.step}, of objective "
                    f"{point.objective!r} is also in {where[key]}. Merge folders of different "
                    "runs."
                )
            where[key] = folder
        points += own
        tables += (found := _tables_of(folder, own))
        pools += _pools_of(folder, {name for table in found for name in table.scores.prompt_ids})
    if not points:
        raise DataError(f"{folders[0]}: {POINTS} has no row. Finish a run with a probe first.")
    if not pools:
        drawn = read_drawn(folders[0], points) if len(folders) == 1 else None
        if drawn is None:
            raise DataError(_without_pool(folders, points))
        return Results(points, tables, None, drawn)
    return Results(points, tables, _agreed(pools))


def read_drawn(folder: Path, points: Sequence[Point]) -> Frontier | None:
    """The frontier in the tables of ``folder``, if it was drawn from ``points``.

    It was not if the tables have other objectives, or other numbers of seeds at a budget.
    """
    if not (folder / CURVES).exists():
        return None
    rows = read_frontier(folder / CURVES)
    largest: dict[tuple[str, int], float] = {}
    for point in points:
        key = point.objective, point.seed
        largest[key] = max(point.kl, largest.get(key, 0.0))
    for row in rows:
        own = [kl for (name, _), kl in largest.items() if name == row.objective]
        if own and row.n_seeds != sum(kl >= row.kl_budget for kl in own):
            return None
    if not {name for name, _ in largest} <= {row.objective for row in rows}:
        return None
    return Frontier(
        rows,
        [],
        dict.fromkeys(_if_there(folder / COMPARISONS, Comparison)),
        _if_there(folder / HYPERVOLUMES, Hypervolume),
        _if_there(folder / AGAINST, Against),
        _if_there(folder / OWN_OPTIMA, OwnOptimum),
    )


def _if_there(path: Path, row_type: type[Row]) -> list[Row]:
    return read_typed(path, row_type) if path.exists() else []


def find_pools(folder: Path) -> list[Path]:
    """The pool files of a results folder; one that was put beside the tables goes first."""
    beside = folder / POOL_NAME
    return [beside] if beside.exists() else sorted((folder / STAGES).rglob(POOL_NAME))


def _pools_of(folder: Path, evaluated: set[str]) -> list[tuple[Path, Pool]]:
    """The folder's pools, without those of other prompts: trials are judged by one of their own."""
    found = [(path, _load_pool(path)) for path in find_pools(folder)]
    return [each for each in found if evaluated & set(each[1].prompt_ids)] or found


def _load_pool(path: Path) -> Pool:
    records = [path.with_name(name) for name in (DONE, POOL_RECORD)]
    if not all(belongs(record, path.name) for record in records):
        raise DataError(f"{path} is not what was written. Repeat the command that made the folder.")
    return Pool.load(path)


def _tables_of(folder: Path, points: Sequence[Point]) -> list[PromptTable]:
    found = {}
    for run_id in sorted({point.run_id for point in points}):
        wrong = damage(folder, run_id, [point for point in points if point.run_id == run_id])
        if wrong is not None and table_of(folder, run_id).exists():
            raise DataError(
                f"{wrong}. Repeat the command that made {folder}; if the change is intended, "
                f"delete {record_of(folder, run_id)}."
            )
        for table in read_prompt_tables(table_of(folder, run_id)):
            found[table.run_id, table.step] = table
    tables = []
    for point in points:
        path = table_of(folder, point.run_id)
        if (point.run_id, point.step) not in found:
            raise DataError(f"{path}: no rows of step {point.step}. Run {point.run_id!r} again.")
        table = found[point.run_id, point.step]
        means = table.scores.means()
        kl, reward = means["kl"], means["reward"]
        if not np.allclose([kl, reward], [point.kl, point.reward], rtol=1e-6, atol=1e-9):
            raise DataError(
                f"{path}: step {point.step} has mean KL {kl:.6g} and reward {reward:.6g}, "
                f"{POINTS} says {point.kl:.6g} and {point.reward:.6g}. Run {point.run_id!r} again."
            )
        tables.append(table)
    return tables


def read_commands(folders: Iterable[Path]) -> list[str]:
    """The commands that made the folders, as far as they are recorded."""
    files = [folder / COMMANDS for folder in folders]
    texts = [path.read_bytes().decode(errors="replace") for path in files if path.exists()]
    lines = [text.split("\n") for text in texts]
    return list(dict.fromkeys(line for own in lines for line in own if line))


def _without_pool(folders: Sequence[Path], points: Sequence[Point]) -> str:
    """The error about a missing pool: what is missing, and which command makes it."""
    first = folders[0]
    table = first / FRONTIER
    sweep = points[0].experiment.startswith("sweep-")
    usual = "alignlab sweep SWEEP.yaml" if sweep else "alignlab run EXPERIMENT"
    command = (read_commands([first]) or [usual])[-1]
    command += "" if "--results" in command else f" --results {first}"
    drawn_before = f" What was drawn from other points is in {table}." if table.exists() else ""
    return (
        f"{', '.join(map(str, folders))}: no {POOL_NAME} there or below stages/. The frontier "
        "starts at the reference's reward, which is measured on it. The command that "
        f"makes it and draws: {command}.{drawn_before}"
    )


def _agreed(pools: Sequence[tuple[Path, Pool]]) -> Pool:
    (first_path, first), *others = pools
    for path, pool in others:
        if set(pool.prompt_ids) != set(first.prompt_ids):
            raise DataError(f"{path}: its prompts are not those of {first_path}.")
        difference = reference_reward(pool.take(first.prompt_ids)) - reference_reward(first)
        mean, se = float(difference.mean()), clustered_se(difference)
        if abs(mean) > 5 * se + 1e-9:
            raise DataError(
                f"{path}: the reference's reward differs from that in {first_path} by {mean:.4g} "
                f"(standard error {se:.2g}). Merge results of one reference and one reward."
            )
    return first
