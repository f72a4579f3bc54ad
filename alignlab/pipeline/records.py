"""What stands in the tables of a results folder, and what a killed process left behind in it."""

import csv
import shutil
from pathlib import Path

from alignlab.files import TEMP_SUFFIX


def remove_leftovers(folder: Path) -> None:
    """Delete half-written temporary files that a killed process left under ``folder``."""
    for path in list(folder.rglob(f"*{TEMP_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def recorded_runs(points: Path) -> dict[str, str]:
    """``run_id`` -> ``config_sha`` of every run whose rows stand in a ``points.csv``."""
    if not points.exists():
        return {}
    with points.open(newline="", encoding="utf-8") as file:
        return {row["run_id"]: row["config_sha"] for row in csv.DictReader(file)}
