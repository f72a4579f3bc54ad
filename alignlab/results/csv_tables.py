"""Tables as CSV, for stages: numbers have six digits, so a rerun gives the same bytes."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import DataError
from alignlab.files import atomic_write


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose columns are those of the first row; what a row lacks stays empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})
    atomic_write(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table as they are written.

    Raises:
        DataError: There is none, or no row in it.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem}. Check the path.") from None
    if not rows:
        raise DataError(f"{path}: the table holds no rows.")
    return rows
