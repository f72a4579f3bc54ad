"""Tables as CSV: one way to write them, so that a rerun gives the same bytes, and one to read them.

With the standard library alone, because the question "is this run done?" must be answered in
milliseconds. A table is replaced in one step (written beside, then renamed).
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_type_hints

from alignlab.errors import DataError
from alignlab.files import atomic_write, canonical

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")


def write_table(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str] = (),
    *,
    numbers: str = ".6f",
) -> bool:
    """Write ``rows``; what a row lacks, ``None`` and NaN are empty cells.

    Args:
        path: The file.
        rows: Column -> value; a dictionary is written as JSON.
        columns: Their order; that of the first row when left out.
        numbers: How a ``float`` is spelled: a format.

    Returns:
        Whether the file has changed.
    """
    rows = list(rows)
    text = io.StringIO()
    # With a terminator of both, a cell with either of them is quoted; lines still end in a newline.
    table = csv.DictWriter(_Lines(text), columns or list(rows[0]), lineterminator="\r\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: spell(value, numbers) for name, value in row.items()})
    content = text.getvalue().encode()
    if path.exists() and path.read_bytes() == content:
        return False
    atomic_write(path, content)
    return True


class _Lines:
    """A file that gets the lines of a CSV writer, which end in carriage return and newline."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def spell(value: object, numbers: str) -> str:
    """A cell's text; ``numbers`` is the format of a ``float``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return format(value + 0.0, numbers)  # + 0.0 turns -0.0 into 0.0
    return canonical(value) if isinstance(value, dict) else str(value)


def read_table(path: Path, *, min_rows: int = 1) -> list[dict[str, str]]:
    """The rows of a table as they are written.

    Raises:
        DataError: The table cannot be read, or has fewer than ``min_rows`` rows.
    """
    with _opened(path) as file:
        rows = list(csv.DictReader(file))
    if len(rows) < min_rows:
        raise DataError(f"{path}: the table holds no rows.")
    return rows


def numbered_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """As ``read_table``, each row with the number of its first line in the file, from 1."""
    with _opened(path) as file:
        reader = csv.reader(file)
        header, rows = next(reader, []), []
        number = reader.line_num + 1
        for cells in reader:  # a text in quotes may go over several lines
            rows.append((number, dict(zip(header, cells, strict=False))))
            number = reader.line_num + 1
    return rows


def read_typed(path: Path, row_type: type[Row]) -> list[Row]:
    """The rows of a table whose columns are the fields of the dataclass ``row_type``.

    Raises:
        DataError: The table cannot be read, has other columns, or a cell that does not fit.
    """
    names = [field.name for field in fields(row_type)]
    with _opened(path) as file:
        lines = list(csv.reader(file))
    header = lines[0] if lines else []
    if header != names:
        missing = [name for name in names if name not in header]
        extra = [name for name in header if name not in names]
        raise DataError(
            f"{path}: columns do not match; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(extra) or 'none'}; expected in this order: {', '.join(names)}."
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append(typed(row_type, line))
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}.") from None
    return rows


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such table. Give the folder of a finished run.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table ({error}).") from None


def _json_object(cell: str) -> dict[str, Any]:
    value = json.loads(cell)
    if not isinstance(value, dict):
        raise ValueError(cell)
    return value


_PARSERS: dict[object, Callable[[str], object]] = {
    str: str,
    int: int,
    float: lambda cell: float(cell) if cell else math.nan,  # a standard error of a single prompt
    float | None: lambda cell: float(cell) if cell else None,
    int | None: lambda cell: int(cell) if cell else None,
    dict[str, Any]: _json_object,
}


def typed(row_type: type[Row], cells: Sequence[str]) -> Row:
    """The row that ``cells`` spell.

    Raises:
        ValueError: They do not fit the fields of ``row_type``.
    """
    types = get_type_hints(row_type)
    if len(cells) != len(types):
        raise ValueError(f"{len(cells)} cells, expected {len(types)}")
    values = {}
    for (name, kind), cell in zip(types.items(), cells, strict=True):
        try:
            values[name] = _PARSERS[kind](cell)
        except ValueError:
            raise ValueError(f"column {name!r} cannot be {cell!r}") from None
    return row_type(**values)
