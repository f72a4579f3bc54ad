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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from alignlab.data.rows import Record
from alignlab.errors import DataError, in_a_line
from alignlab.files import is_lfs_pointer

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".zst")
FORMATS = f"{', '.join(SUFFIXES)}, texts also with {', '.join(COMPRESSED)} behind it"
ROWS_AT_ONCE = 1024  # of a Parquet file
_PARQUET = "Dataset.to_parquet of the library datasets writes Parquet."
OTHERS = {  # what to do with files of other types
    ".arrow": f"Write it as Parquet: {_PARQUET}",
    ".tsv": "Write it as .csv, with commas between cells.",
    ".txt": 'Write it as JSON lines, such as {"text": "..."}.',
    ".ndjson": "Name it .jsonl.",
    ".pq": "Name it .parquet.",
    ".xz": f"Unpack it, or pack it as {', '.join(COMPRESSED)}.",
    ".zip": f"Unpack it, or pack it as {', '.join(COMPRESSED)}.",
}
# The names that parts of a data set have, as in train-00000-of-00002.parquet or test_prefs.jsonl.
_PART = re.compile("(train|test|validation|valid|val|dev|eval)(?![a-z])")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def data_files(source: str | Path) -> list[Path] | None:
    """The files of a path, folder or pattern, sorted by name; ``None`` if it is a hub id.

    Raises:
        DataError: No file, an empty file, a file of unknown type, or files of several types.
    """
    path = Path(source).expanduser()
    files = [path] if path.is_file() else _several(source, path)
    for file in files or ():
        if format_of(file) is None:
            suffix = f"cannot tell its format from the suffix {file.suffix!r}"
            raise DataError(f"{file}: {suffix}. {OTHERS.get(file.suffix, f'Name it {FORMATS}.')}")
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty (0 bytes). Pass one with at least one row.")
        if is_lfs_pointer(file):
            raise DataError(f"{file}: a pointer of Git LFS, not the file. Call git lfs pull.")
    return files


def read_files(files: Sequence[Path]) -> Iterator[Record]:
    """Read all records, file after file, without holding a file of lines or of a table in memory.

    Raises:
        DataError: A file cannot be read.
    """
    for file, name in named(files):
        yield from _read_file(file, name)


def named(files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file with the name that its records have: its path from the folder above all files."""
    above = os.path.commonpath([file.parent for file in files])
    return [(file, str(file.relative_to(above))) for file in files]


def format_of(path: Path) -> str | None:
    """The one of ``SUFFIXES`` that a file's name has, or ``None``."""
    name = path.name.lower()
    bare = next((name.removesuffix(end) for end in COMPRESSED if name.endswith(end)), name)
    suffix = Path(bare).suffix
    return suffix if suffix in SUFFIXES and not (suffix == ".parquet" and bare != name) else None


def _several(source: str | Path, path: Path) -> list[Path] | None:
    """The files of a folder or a pattern; ``None`` if ``source`` is a hub id."""
    if path.is_dir():
        _refuse_saved(path)
        files = sorted(p for p in path.iterdir() if p.is_file() and format_of(p))
        missing = f"the folder holds no data file ({FORMATS})"
        below = None if files else next(filter(format_of, path.rglob("*.*")), None)
        if below is not None:
            missing = f"the folder itself holds no data file, but {below.parent} does. Name that "
            missing += f"folder, or files with a pattern, such as {path}/**/*{format_of(below)}"
    elif glob.has_magic(str(path)):
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        files = [file for file in found if file.is_file()]
        missing = f"no file matches the pattern (looked in {Path.cwd()})"
    elif format_of(path) or isinstance(source, Path) or not _HUB_ID.fullmatch(source):
        known = "" if format_of(path) else ", and not a hub id (owner/name)"
        files, missing = [], f"no such file (looked in {Path.cwd()}){known}"
    else:
        return None
    if not files:
        raise DataError(f"{path}: {missing}. Check the path.")
    kinds = sorted({str(format_of(file)) for file in files})
    if len(kinds) > 1:
        raise DataError(
            f"{path}: matches files of several types ({', '.join(kinds)}). Name one "
            f"with a pattern, such as {path if path.is_dir() else path.parent}/*{kinds[0]}."
        )
    parts = sorted({part[0] for file in files if (part := _PART.match(file.name.lower()))})
    if path.is_dir() and len(parts) > 1:
        raise DataError(
            f"{path}: holds files of several splits ({', '.join(parts)}), which would be read as "
            f"one. Name one with a pattern, such as {path}/{parts[-1]}*{kinds[0]}, or all with "
            f"{path}/*{kinds[0]}."
        )
    return files


def _refuse_saved(path: Path) -> None:
    """Refuse a folder that ``save_to_disk`` of the library datasets wrote.

    Raises:
        DataError: It is one; says how to write its rows to a file that is read.
    """
    splits = path / "dataset_dict.json"
    if splits.is_file() or (path / "state.json").is_file():
        of_split = "['train']" if splits.is_file() else ""
        raise DataError(
            f"{path}: written by save_to_disk of the library datasets, which is not read. Write "
            f"Parquet, in Python: datasets.load_from_disk({str(path)!r}){of_split}"
            ".to_parquet('train.parquet')."
        )


def _read_file(path: Path, name: str) -> Iterator[Record]:
    """The records of one file, each called ``name`` and its line or number."""
    read = {".csv": _read_csv, ".parquet": _read_parquet}.get(str(format_of(path)), _read_json)
    try:
        yield from read(path, name)
    except (OSError, EOFError) as problem:
        raise DataError(
            f"{path}: cannot be read: {in_a_line(problem)}. Check the file."
        ) from problem


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked."""
    if path.suffix.lower() not in COMPRESSED:
        return path.open("rb")
    import pyarrow as pa

    return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="detect")))


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text, without the ``\\n`` that ends them.

    Raises:
        DataError: The file is not UTF-8 text.
    """
    read = 0
    with _open(path) as file:
        for line in file:
            try:
                yield line.decode("utf-8" if read else "utf-8-sig").removesuffix("\n")
            except UnicodeDecodeError as problem:
                raise DataError(
                    f"{path}: not a text file: {problem.reason} at byte {read + problem.start}. "
                    "Pass UTF-8 text, or name a Parquet file .parquet."
                ) from problem
            read += len(line)


def _read_json(path: Path, name: str) -> Iterator[Record]:
    """Lines of JSON, or one JSON value: an array, and in a ``.json`` also one object."""
    first = next((line for line in _lines(path) if line.strip()), "")
    if first.lstrip()[:1] == "[" or format_of(path) == ".json":
        return iter(_read_whole_json(path, name))
    return _read_lines(name, _lines(path))


def _read_lines(name: str, lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _read_line(f"{name}:{number}", line)


def _read_whole_json(path: Path, name: str) -> list[Record]:
    """Read one JSON value, or lines of JSON if the file is not a single value."""
    lines = list(_lines(path))
    try:
        whole = json.loads("\n".join(lines), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        records = list(_read_lines(name, lines))
        if not any(record.fields for record in records):
            raise DataError(f"{path}: not JSON: {problem}. Check the file.") from problem
        return records
    if isinstance(whole, dict):
        _check_object(path, whole)
    values = whole if isinstance(whole, list) else [whole]
    return [_as_record(f"{name}:{k}", value) for k, value in enumerate(values, start=1)]


def _check_object(path: Path, whole: dict[str, Any]) -> None:
    """Refuse a whole table that is written as one object, because an object is one row.

    Raises:
        DataError: Rows are the value of a name, or the object holds columns instead of rows.
    """
    nested = {name: value for name, value in whole.items() if isinstance(value, list | dict)}
    objects = {name: v[0] for name, v in nested.items() if isinstance(v, list) and v}
    objects = {name: first for name, first in objects.items() if isinstance(first, dict)}
    if any({"role", "from"} & set(first) for first in objects.values()):
        return  # a conversation
    if nested and len(nested) == len(whole) and not objects:
        raise DataError(
            f"{path}: holds columns, not rows. Write a list of objects, one for each row; pandas "
            "does with to_json(path, orient='records')."
        )
    if objects and not {"prompt", "text", "instruction"} & set(whole):
        raise DataError(
            f"{path}: one JSON object, whose {next(iter(objects))!r} may be the rows. Write only "
            "this list into the file."
        )


def _read_line(where: str, line: str) -> Record:
    try:
        return _as_record(where, json.loads(line, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as problem:
        return Record(where, None, f"not JSON: {problem}")


@dataclass(frozen=True, slots=True)
class _Twice:
    """An object that has a key twice; JSON readers would silently keep the last value."""

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
    """Read a CSV file: cells are texts, and an empty cell is a null."""
    csv.field_size_limit(sys.maxsize)  # the default refuses texts of 128 KiB
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as text:
        yield from _read_table(path, name, csv.DictReader(text, strict=True))


def _read_table(path: Path, name: str, table: "csv.DictReader[str]") -> Iterator[Record]:
    """Check the header and read the rows; one of another length is a record with its problem.

    Raises:
        DataError: The header names a column twice, or the file is not CSV or not UTF-8.
    """
    try:
        _check_header(path, table.fieldnames or [])
        for row in table:
            where = f"{name}:{table.line_num}"
            if None in row or None in row.values():
                yield Record(where, None, "not as many cells as the header has names")
            else:
                yield Record(where, {name: cell or None for name, cell in row.items()})
    except UnicodeDecodeError:
        for _ in _lines(path):  # says at which byte
            pass
        raise
    except csv.Error as problem:
        raise DataError(
            f"{path}:{table.reader.line_num}: not CSV: {problem}. Check quotes and separators."
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
    """Read a Parquet file, a few rows at a time.

    Raises:
        DataError: The schema names a column twice, or the file is not Parquet or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Read in pieces of pages, so that a large group of rows is never in memory as a whole.
        file = pq.ParquetFile(path, buffer_size=1 << 20)
        _check_header(path, file.schema_arrow.names)
        for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
            batch.validate(full=True)  # finds bytes that are no text now, not later
            for row in _rows(path, batch):
                number += 1
                yield Record(f"{name}:{number}", row)
    except (pa.ArrowException, UnicodeDecodeError) as problem:
        raise DataError(
            f"{path}: not a Parquet file: {in_a_line(problem)}. Check the file."
        ) from problem


def _rows(path: Path, table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a table as Python's values."""
    columns: dict[str, list[Any]] = {}
    for column, values in zip(table.schema.names, table.columns, strict=True):
        try:
            columns[column] = values.to_pylist()
        except Exception as problem:  # a date beyond the year 9999, say: pyarrow raises many kinds
            raise DataError(
                f"{path}: column {column!r} has values that Python cannot hold: "
                f"{in_a_line(problem)}. Write it as text, or leave it out."
            ) from problem
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))
