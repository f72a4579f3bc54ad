"""``points/<run>.json``: hashes that show whether a run's rows and per-prompt table are intact.

With this record a run is up to date even without its weights: it has the hash of the run's config,
of every row in ``points.csv`` and of ``points/<run>.parquet``, and the last logged values. Tables
older than these records have none, and are used unchecked.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignlab.files import (
    LAST,
    PREVIOUS,
    STARTED,
    TEMP_SUFFIX,
    belongs,
    read_record,
    write_record,
)
from alignlab.results.run_folder import CONFIG, STAGES, job_folders
from alignlab.results.tables import COMMANDS, Point, drop_rows, read_points, row_sha

POINTS, TABLES = "points.csv", "points"
CONFIGS = "configs"  # folder of the resolved config of every job
STUDY = "study.db"  # of a sweep: its trials
KEPT = ("config_sha", "metrics", "stopped")


def table_of(results: Path, run_id: str) -> Path:
    """The run's per-prompt table."""
    return results / TABLES / f"{run_id}.parquet"


def record_of(results: Path, run_id: str) -> Path:
    """The run's record."""
    return results / TABLES / f"{run_id}.json"


def results_folders(roots: Iterable[Path]) -> list[Path]:
    """Results folders among ``roots`` and directly below them, those of a sweep's jobs too."""
    found = [
        folder
        for root in roots
        for folder in (root, *sorted(root.glob("*")), *sorted(root.glob("*/job-*")))
        if folder.is_dir() and any((folder / name).exists() for name in (POINTS, CONFIGS, STAGES))
    ]
    return list(dict.fromkeys(found))


def rows_by_run(results: Path) -> dict[str, list[Point]]:
    """``run_id`` -> its rows in ``points.csv``.

    Raises:
        DataError: The table cannot be read.
    """
    found: dict[str, list[Point]] = {}
    for row in read_points(results / POINTS) if (results / POINTS).exists() else []:
        found.setdefault(row.run_id, []).append(row)
    return found


def keep_record(results: Path, run_id: str, done: dict[str, Any]) -> None:
    """Write the record of a run whose rows have just been put into ``points.csv``.

    Args:
        results: Results folder.
        run_id: Name of the run.
        done: The record of the finished run.
    """
    rows = rows_by_run(results)[run_id]
    shas = {str(row.step): row_sha(row) for row in rows}
    stamps = {table_of(results, run_id).name: done["table"]}
    record = {key: done[key] for key in KEPT} | {"rows": shas, "files": stamps}
    write_record(record_of(results, run_id), record)


def damage(results: Path, run_id: str, rows: Sequence[Point]) -> str | None:
    """What is wrong with a run's rows, its per-prompt table or its record; ``None``: nothing."""
    path, table = record_of(results, run_id), table_of(results, run_id)
    if not table.exists():
        return f"{table} is missing"
    if not path.exists():
        return None
    record = read_record(path)
    if record is None:
        return f"{path} is damaged"
    if not belongs(path, table.name):
        return f"{table} is not what was written"
    if {str(row.step): row_sha(row) for row in rows} != record["rows"]:
        return f"the rows of {run_id} in {results / POINTS} are not what was written"
    return None


def drop_damaged_rows(results: Path) -> list[str]:
    """Remove damaged rows from ``points.csv``; returns one message for each."""
    known = {path.stem: read_record(path) for path in (results / TABLES).glob("*.json")}

    def is_right(row: Point) -> bool:
        record = known.get(row.run_id)
        if record is None:  # the run has no record, or the record itself is damaged
            return not known or table_of(results, row.run_id).exists()
        return record["rows"].get(str(row.step)) == row_sha(row)

    return drop_rows(results / POINTS, is_right)


def has_output(results: Path) -> bool:
    """Whether a results folder holds more than what a call writes before its jobs do anything."""
    before = {".lock", Path(COMMANDS).name, STUDY, STARTED, CONFIG}
    files = (path for path in results.rglob("*") if path.is_file())
    return any(path.name not in before and path.suffix != ".log" for path in files)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left under a results folder.

    That is half-written files, and checkpoints of finished runs.
    """
    for run in job_folders(folder):
        for name in (LAST, PREVIOUS) if run.done_file.exists() else ():
            (run.logs / name).unlink(missing_ok=True)
    for path in list(folder.rglob(f"*{TEMP_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
