"""Where rows come from: JSONL, CSV and Parquet files by path, Hugging Face data sets by hub id."""

import csv
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from alignlab.data.chat import message
from alignlab.data.formats import Fields, Record, to_rows
from alignlab.data.rows import R, Refusals, Refuse, Row, Turn
from alignlab.errors import ConfigError, DataError

SUFFIXES = (".jsonl", ".csv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_NUMBERS, _FLAGS = ("label", "margin", "rating"), ("ends", "chosen_ends", "rejected_ends")


def read_rows(
    source: str | Path,
    kind: type[R],
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    refuse: Refuse = "drop",
) -> tuple[list[R], Refusals]:
    """Read typed rows.

    Args:
        source: A ``.jsonl``, ``.csv`` or ``.parquet`` file, or the hub id of a data set.
        kind: A row type of ``alignlab.data.rows``, such as ``PreferencePair``.
        split: Which part. For a hub id the name of a split (``train`` if left out); for a file
            the value to keep in its column ``split``.
        limit: Keep the first so many usable rows.
        columns: Our name of a column -> its name in the source, where they differ.
        refuse: ``drop`` leaves unusable rows out with a count; ``error`` stops at the first.

    Returns:
        The usable rows in their order, and what was refused with reasons.

    Raises:
        DataError: The source is missing, unreadable, lacks a column, or has no usable row.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}. Leave it out to take all rows.")
    refusals = Refusals(str(source), refuse)
    records = read_records(source, split)
    if columns:
        records = _renamed(records, columns, str(source))
    return to_rows(records, kind, refusals, limit), refusals


def read_records(source: str | Path, split: str | None = None) -> list[Record]:
    """All records of a file or a hub data set, before anything is checked in them.

    Raises:
        DataError: The source is missing, empty or unreadable, or has no such split.
    """
    path = as_path(source)
    if path is None:
        return read_hub(str(source), split or "train")
    records = _read_file(path)
    if not records:
        raise DataError(f"{path}: the file holds no rows. Pass a file with at least one row.")
    return records if split is None else _of_split(records, path, split)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL that ``read_rows`` reads back; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                values = {f.name: as_json(getattr(row, f.name)) for f in fields(row)}
                values = {name: value for name, value in values.items() if value is not None}
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def as_json(value: Any) -> Any:
    """A row's value as JSON holds it: turns become messages, tuples lists."""
    if isinstance(value, Turn):
        return message(value)
    return list(map(as_json, value)) if isinstance(value, tuple) else value


def as_path(source: str | Path) -> Path | None:
    """The file that ``source`` means, or ``None`` if it is a hub id.

    Raises:
        DataError: It looks like a path but there is no such file, or of no known type.
    """
    path = Path(source).expanduser()
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        return _checked_file(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Pass one file in it ({', '.join(SUFFIXES)}).")
    if not isinstance(source, Path) and _HUB_ID.fullmatch(source):
        return None
    raise DataError(
        f"{source}: no such file (looked in {Path.cwd()}), and not a hub id (owner/name). "
        "Check the path."
    )


def first_available(source: str | Sequence[str]) -> str:
    """The first of several sources that is at hand; a hub id always counts as such.

    Raises:
        DataError: None is.
    """
    named = [source] if isinstance(source, str) else list(source)
    for name in named:
        if Path(name).expanduser().exists():
            return name
        try:
            if as_path(name) is None:
                return name
        except DataError:
            continue
    raise DataError(
        f"none of these is there: {', '.join(named) or '(no source named)'}. Give the path of a "
        "file that exists, or a hub id."
    )


def _checked_file(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file (looked in {Path.cwd()}). Check the path.")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: cannot tell its format from the suffix {path.suffix!r}. "
            f"Name it {', '.join(SUFFIXES)}."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes). Pass a file with at least one row.")
    return path


def _read_file(path: Path) -> list[Record]:
    read = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    try:
        return list(read[path.suffix.lower()](path))
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{path}: not a text file: {problem.reason} at byte {problem.start}. "
            "Pass UTF-8 text, or name a Parquet file .parquet."
        ) from problem
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {problem}. Check the file.") from problem


def _read_jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as problem:
                yield Record(where, None, f"not JSON: {problem}")
                continue
            if isinstance(value, dict):
                yield Record(where, value)
            else:
                yield Record(where, None, f"a JSON {type(value).__name__}, not an object")


def _read_csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, strict=True)
        try:
            for row in table:
                where = f"{path.name}:{table.line_num}"
                if None in row or None in row.values():
                    yield Record(where, None, "not as many cells as the header has names")
                else:
                    yield Record(where, {name: _cell(name, cell) for name, cell in row.items()})
        except csv.Error as problem:
            raise DataError(
                f"{path}:{table.line_num}: not CSV: {problem}. Check quotes and separators."
            ) from problem


def _cell(name: str, cell: str) -> Any:
    """A CSV cell as the type its column has; a cell that does not fit stays text and is refused."""
    if name in _NUMBERS:
        try:
            return float(cell) if cell else None
        except ValueError:
            return cell
    if name in _FLAGS:
        return {"true": True, "false": False, "": None}.get(cell.lower(), cell)
    return cell


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowException as problem:
        raise DataError(f"{path}: not a Parquet file: {problem}. Check the file.") from problem
    number = 0
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            number += 1
            yield Record(f"{path.name}:{number}", row)


def read_hub(
    name: str, split: str, *, config: str | None = None, folder: str | None = None
) -> list[Record]:
    """All records of one split of a hub data set.

    Args:
        name: The hub id.
        split: ``train``, ``test`` or what else it has.
        config: Which of its configurations, where it has several.
        folder: Which of its folders, where it has several and names no configurations.

    Raises:
        DataError: It cannot be loaded.
    """
    # Imported here: it takes long, and most runs read files.
    from datasets import load_dataset

    retries = logging.getLogger("huggingface_hub")
    level = retries.level
    retries.setLevel(logging.ERROR)  # it would tell of every retry; one message is enough
    try:
        parts = {"name": config, "data_dir": folder}
        chosen = {key: value for key, value in parts.items() if value is not None}
        table = load_dataset(name, split=split, **chosen)
    except Exception as problem:  # datasets raises many kinds, none of them its own
        first_line = str(problem).partition("\n")[0][:200].rstrip(". ")
        raise DataError(
            f"{name}: the hub data set (split {split!r}) cannot be loaded: "
            f"{type(problem).__name__}: {first_line}. "
            "Pass a local .jsonl, .csv or .parquet file, or set HF_HUB_OFFLINE=0 and check the "
            "network, the name and the split."
        ) from problem
    finally:
        retries.setLevel(level)
    part = "/".join(filter(None, (config, folder, split)))
    return [Record(f"{name}[{part}]:{k}", row) for k, row in enumerate(table, start=1)]


def _of_split(records: list[Record], path: Path, split: str) -> list[Record]:
    values = {str((record.fields or {}).get("split")) for record in records}
    if not any("split" in (record.fields or {}) for record in records):
        raise DataError(f"{path}: no column 'split' to pick {split!r} from. Leave split out.")
    if split not in values:
        raise DataError(f"{path}: no rows of split {split!r}. Splits found: {sorted(values)}.")
    return [r for r in records if r.fields is None or str(r.fields.get("split")) == split]


def _renamed(records: list[Record], columns: Mapping[str, str], source: str) -> list[Record]:
    found = sorted({name for record in records for name in record.fields or ()})
    for ours, theirs in columns.items():
        if theirs not in found:
            raise DataError(
                f"{source}: missing column {theirs} (columns: {{{ours}: {theirs}}}). "
                f"Columns found: {', '.join(found) or 'none'}."
            )
    return [replace(r, fields=_rename(r.fields, columns)) if r.fields else r for r in records]


def _rename(found: Fields, columns: Mapping[str, str]) -> Fields:
    renamed = {name: value for name, value in found.items() if name not in columns}
    return renamed | {ours: found[name] for ours, name in columns.items() if name in found}
