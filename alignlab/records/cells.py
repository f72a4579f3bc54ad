"""From a number to the runs that made it: cells of tables, by their place or as they print."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.records.find import Run, runs_in
from alignlab.results.csv_tables import numbered_rows
from alignlab.results.run_folder import job_name
from alignlab.results.run_records import results_folders, rows_by_run
from alignlab.results.tables import BUDGETS, Point

PLACE = re.compile(r"(.+\.csv):(\d+)(?::(\w+))?")
NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?) ?(%)?(?: ?(?:±|\+-) ?(\S+))?")
CURVES, FRONTIER = "curves.csv", "frontier.csv"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, or a row of it.

    Args:
        path: The table.
        line: Of the file, from 1, which is the header.
        row: Column -> text.
        column: Its column; ``None`` for the row.
    """

    path: Path
    line: int
    row: Mapping[str, str]
    column: str | None

    def __str__(self) -> str:
        """Its address and what it holds."""
        if self.column is None:
            return f"{self.path}:{self.line}"
        return f"{self.path}:{self.line}:{self.column} is {self.row[self.column]}"


def cell_at(place: str) -> Cell | None:
    """The cell at ``TABLE.csv:LINE:COLUMN`` or the row at ``TABLE.csv:LINE``.

    Returns:
        ``None`` where ``place`` is no such address.

    Raises:
        ConfigError: There is no such line or column.
        DataError: The table cannot be read.
    """
    match = PLACE.fullmatch(place)
    if match is None:
        return None
    path, line, column = Path(match[1]), int(match[2]), match[3]
    rows = dict(numbered_rows(path))
    if line not in rows:
        listed = f"{min(rows)} to {max(rows)}" if rows else "none"
        raise ConfigError(f"{place}: no row begins in line {line}. Lines with rows: {listed}.")
    if column is not None and column not in rows[line]:
        raise ConfigError(f"{place}: no column {column!r}. Columns: {', '.join(rows[line])}.")
    return Cell(path, line, rows[line], column)


def cells_with(number: str, tables: Iterable[Path]) -> list[Cell]:
    """The cells that print as ``number``, such as ``0.92``, ``0.92 ± 0.11`` or ``92.1 %``.

    Rows of ``curves.csv`` that are in ``frontier.csv`` are left out.

    Raises:
        DataError: A table cannot be read.
    """
    match = NUMBER.fullmatch(number.strip())
    if match is None:
        return []
    value, percent, half = match.groups()
    factor = 100.0 if percent else 1.0
    return [
        Cell(path, line, row, column)
        for path in tables
        for line, row in numbered_rows(path)
        if not _is_twice(path, row)
        for column, text in row.items()
        if prints_as(text, value, factor)
        and (half is None or prints_as(_half_width(row, column), half, factor))
    ]


def prints_as(text: str, number: str, factor: float = 1.0) -> bool:
    """Whether the number in a cell, ``factor`` times, prints as ``number`` with its digits."""
    try:
        value, wanted = factor * float(text), float(number)
    except ValueError:
        return False
    digits, exponent, _ = number.lower().partition("e")
    places = len(digits.partition(".")[2])
    return float(format(value, f".{places}{'e' if exponent else 'f'}")) == wanted


def _half_width(row: Mapping[str, str], column: str) -> str:
    """Half of a cell's 95 % interval; empty where its row has none."""
    end = {"oracle_efficiency": "efficiency_hi", "difference": "hi", "hypervolume": "hi"}
    try:
        if error := row.get(f"{column}_se"):
            return str(1.96 * float(error))
        return str(float(row[end.get(column, f"{column}_hi")]) - float(row[column]))
    except (KeyError, ValueError):
        return ""


def _is_twice(path: Path, row: Mapping[str, str]) -> bool:
    return path.name == CURVES and float(row.get("kl_budget") or 0) in BUDGETS


def tables_in(roots: Iterable[Path]) -> list[Path]:
    """The tables of results folders, those people quote first; a root may be a table itself."""
    found = []
    for root in roots:
        if root.suffix == ".csv":
            found.append(root)
        for folder in results_folders([root]):
            found += sorted(folder.glob("*.csv"), key=lambda p: (p.name != FRONTIER, p.name))
    return found


def runs_of(cell: Cell) -> list[Run]:
    """The runs that a row is about, or is computed from; none for what no run made."""
    row, results = cell.row, cell.path.parent
    if "run_id" in row:
        return [Run(results, row["run_id"], int(row["step"]) if row.get("step") else None)]
    if {"stage", "job"} <= row.keys():
        return [Run(results, job_name(row["stage"], row["job"]))]
    folders = results_folders([results])
    objectives = {row[name] for name in ("objective", "other", "arm") if row.get(name)}
    if objectives:
        return list(_runs_with(folders, objectives, row))
    names = {text.partition(", step ")[0]: text.partition(", step ")[2] for text in row.values()}
    return [
        Run(folder, name, int(names[name]) if names[name] else None)
        for folder in folders
        for name in runs_in(folder)
        if name in names
    ]


def _runs_with(
    folders: Iterable[Path], objectives: set[str], row: Mapping[str, str]
) -> Iterator[Run]:
    for folder in folders:
        for run_id, (point, *_) in rows_by_run(folder).items():
            if point.objective in objectives and _has_settings(point, row):
                yield Run(folder, run_id)


def _has_settings(point: Point, row: Mapping[str, str]) -> bool:
    """Whether a run has the hyperparameter's value, or the trial's point, that a row names."""
    if row.get("hparam") and "value" in row:
        return str(point.hparams.get(row["hparam"])) == row["value"]
    params = {key.rpartition(".")[2]: value for key, value in _params(row).items()}
    return all(point.hparams.get(key, value) == value for key, value in params.items())


def _params(row: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(row["params"]) if row.get("params") else {}
    return found
