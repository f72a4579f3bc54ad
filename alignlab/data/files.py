"""Files of records: JSONL, JSON, CSV and Parquet, one or many, compressed or not.

Lines end at ``\\n`` (or ``\\r\\n``) alone. Other characters that Unicode calls line ends, such as
U+0085 and U+2028, are part of a text.
"""

import csv
import glob
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.data.rows import Record
from alignlab.errors import DataError, in_a_line

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".zst")
FORMATS = f"{', '.join(SUFFIXES)}, texts also with {', '.join(COMPRESSED)} behind it"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def as_path(source: str | Path) -> Path | None:
    """The file, folder or pattern of files that ``source`` means; ``None`` if it is a hub id.

    Raises:
        DataError: It looks like a path but there is no such file, or of no known type.
    """
    path = Path(source).expanduser()
    if path.exists() or glob.has_magic(str(path)) or format_of(path):
        data_files(path)
        return path
    if not isinstance(source, Path) and _HUB_ID.fullmatch(source):
        return None
    raise DataError(
        f"{source}: no such file (looked in {Path.cwd()}), and not a hub id (owner/name). "
        "Check the path."
    )


def data_files(path: Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, in the order of their names.

    Raises:
        DataError: None, one of unknown type or without content, or files of several types.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and format_of(p))
        missing = f"the folder holds no data file ({FORMATS})"
    elif path.exists() or not glob.has_magic(str(path)):
        files, missing = [path], ""
    else:
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        missing = f"no file matches the pattern (looked in {Path.cwd()})"
    if not files:
        raise DataError(f"{path}: {missing}. Check the path.")
    for file in files:
        _check_file(file)
    kinds = sorted({str(format_of(file)) for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"{path}: stands for files of several types ({', '.join(kinds)}). Name one "
            f"with a pattern, such as {path if path.is_dir() else path.parent}/*{kinds[0]}."
        )
    return files


def read_files(path: Path) -> list[Record]:
    """All records of a file, a folder or a pattern, file after file.

    Raises:
        DataError: A file that is missing, empty or unreadable, or none with a record in it.
    """
    files = data_files(path)
    above = os.path.commonpath([file.parent for file in files])
    records = [
        record for file in files for record in _read_file(file, str(file.relative_to(above)))
    ]
    if not records:
        raise DataError(f"{path}: the file holds no rows. Pass a file with at least one row.")
    return records


def format_of(path: Path) -> str | None:
    """Which of ``SUFFIXES`` a file's name says it is; ``None`` for none."""
    name = path.name.lower()
    bare = next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)
    suffix = Path(bare).suffix
    return suffix if suffix in SUFFIXES and not (suffix == ".parquet" and bare != name) else None


def read_lines(path: Path) -> list[Any]:
    """The JSON values of a file that this program wrote, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked in {Path.cwd()}). Check the path.")
    if format_of(path) is None:
        raise DataError(
            f"{path}: cannot tell its format from the suffix {path.suffix!r}. Name it {FORMATS}."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes). Pass a file with at least one row.")


def _read_file(path: Path, name: str) -> list[Record]:
    read: dict[str, Callable[[Path, str], Iterable[Record]]] = {
        ".jsonl": _read_json,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    try:
        return list(read[str(format_of(path))](path, name))
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{path}: not a text file: {problem.reason} at byte {problem.start}. "
            "Pass UTF-8 text, or name a Parquet file .parquet."
        ) from problem
    except (OSError, EOFError) as problem:
        raise DataError(
            f"{path}: cannot be read: {in_a_line(problem)}. Check the file."
        ) from problem


def _text(path: Path) -> str:
    if path.suffix.lower() not in COMPRESSED:
        return path.read_bytes().decode("utf-8-sig")
    import pyarrow as pa

    with pa.input_stream(str(path), compression="detect") as stream:
        content: bytes = stream.read()
    return content.decode("utf-8-sig")


def _read_json(path: Path, name: str) -> list[Record]:
    """Lines of JSON, or one JSON array; a ``.json`` may also be one object."""
    text, problem = _text(path), None
    if text.lstrip()[:1] == "[" or format_of(path) == ".json":
        try:
            whole = json.loads(text, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            problem = error  # lines, perhaps
        else:
            values = whole if isinstance(whole, list) else [whole]
            return [_as_record(f"{name}:{k}", value) for k, value in enumerate(values, start=1)]
    lines = enumerate(text.split("\n"), start=1)
    records = [_read_line(f"{name}:{number}", line) for number, line in lines if line.strip()]
    if problem is not None and not any(record.fields for record in records):
        raise DataError(f"{path}: not JSON: {problem}. Check the file.")
    return records


def _read_line(where: str, line: str) -> Record:
    try:
        return _as_record(where, json.loads(line, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as problem:
        return Record(where, None, f"not JSON: {problem}")


@dataclass(frozen=True, slots=True)
class _Twice:
    """An object that gives a name two values, of which JSON readers keep the last."""

    name: str


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Twice:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    return _Twice(next(name for k, (name, _) in enumerate(pairs) if name in dict(pairs[:k])))


def _as_record(where: str, value: Any) -> Record:
    if isinstance(value, dict):
        return Record(where, value)
    if isinstance(value, _Twice):
        return Record(where, None, f"two values of {value.name!r}")
    return Record(where, None, f"a JSON {type(value).__name__}, not an object")


def _read_csv(path: Path, name: str) -> Iterator[Record]:
    """Cells are texts; an empty one is a null, which is how tables write it."""
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of 128 KiB
    table = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        _check_header(path, table.fieldnames or [])
        for row in table:
            where = f"{name}:{table.line_num}"
            if None in row or None in row.values():
                yield Record(where, None, "not as many cells as the header has names")
            else:
                yield Record(where, {name: cell or None for name, cell in row.items()})
    except csv.Error as problem:
        raise DataError(
            f"{path}:{table.line_num}: not CSV: {problem}. Check quotes and separators."
        ) from problem


def _check_header(path: Path, names: object) -> None:
    seen: set[object] = set()
    if isinstance(names, list) and len(names) == 1 and (other := re.search(r"[;\t|]", names[0])):
        raise DataError(f"{path}: cells are separated by {other[0]!r}. Separate them by commas.")
    for name in names if isinstance(names, list) else []:
        if name in seen:
            raise DataError(f"{path}: two columns have the name {name!r}. Rename one of them.")
        seen.add(name)


def _read_parquet(path: Path, name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)  # bytes that are no text are found when they are asked for
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        raise DataError(
            f"{path}: not a Parquet file: {in_a_line(problem)}. Check the file."
        ) from problem
    _check_header(path, table.column_names)
    columns: dict[str, list[Any]] = {}
    for column, values in zip(table.column_names, table.columns, strict=True):
        try:
            columns[column] = values.to_pylist()
        except Exception as problem:  # a date beyond the year 9999, say: pyarrow raises many kinds
            raise DataError(
                f"{path}: column {column!r} holds what Python cannot: {in_a_line(problem)}. Write "
                "it as text, or leave it out."
            ) from problem
    for number, row in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Record(f"{name}:{number}", dict(zip(columns, row, strict=True)))
