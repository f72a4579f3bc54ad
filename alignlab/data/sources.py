"""Where rows come from: JSONL, CSV and Parquet files by path, Hugging Face data sets by hub id."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from alignlab.data.chat import message
from alignlab.data.files import data_files, read_files
from alignlab.data.formats import iter_rows
from alignlab.data.rows import Fields, R, Record, Refuse, Row, RowReport, Turn
from alignlab.data.rows.nested import printable
from alignlab.data.rows.values import Changed
from alignlab.errors import ConfigError, DataError
from alignlab.files import written_whole
from alignlab.hub import ask_hub

STORED_FROM = 8e6  # bytes of files from which on rows are not held in memory


def read_rows(
    source: str | Path,
    kind: type[R],
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    refuse: Refuse = "drop",
) -> tuple[list[R], RowReport]:
    """Read typed rows.

    Args:
        source: A ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file, a folder of such files, a
            pattern such as ``data/*.jsonl.gz``, or the hub id of a data set.
        kind: A row type of ``alignlab.data.rows``, such as ``PreferencePair``.
        split: A split of the hub (``train`` if left out), or a value of a file's column ``split``.
        limit: As in ``TreeData``, like ``columns`` and ``refuse``.

    Returns:
        The usable rows in their order, and what was refused with reasons.

    Raises:
        DataError: The source is missing, unreadable, lacks a column, or has no usable row.
    """
    report = RowReport(str(source), refuse)
    records = read_records(source, split)
    return list(typed_rows(records, kind, report, split, limit, columns)), report


def typed_rows(
    records: Iterable[Record],
    kind: type[R],
    report: RowReport,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[R]:
    """Yield the typed rows of records, which are read two or three times.

    Args:
        records: Those of the split, in memory or ``StoredRecords``.
        kind: A row type of ``alignlab.data.rows``.
        report: Counts them.
        split: The split that they were selected by.
        limit: As in ``TreeData``, like ``columns``.

    Raises:
        DataError: A column is missing, or there is no usable row.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}. Leave it out to take all rows.")
    if columns:
        records = _renamed(records, columns, report)
    picked = ("split",) if split is not None else ()
    return iter_rows(records, kind, report, limit, columns or {}, picked)


def read_records(source: str | Path, split: str | None = None) -> list[Record]:
    """All records of files or a hub data set, before anything is checked in them.

    Raises:
        DataError: The source is missing, empty or unreadable, or has no such split.
    """
    files = data_files(source)
    if files is None:
        return read_hub(str(source), split or "train")
    return list(StoredRecords(source, files, split))


def records_of(source: str | Path, split: str | None = None) -> Iterable[Record]:
    """The records of ``read_records``, which are not held in memory if their files are large.

    Raises:
        DataError: See ``read_records``; for large files also while they are read.
    """
    files = data_files(source)
    if files is None or not are_large(files):
        return read_records(source, split)
    return StoredRecords(source, files, split)


def are_large(files: Sequence[Path]) -> bool:
    """Whether the rows of files are too many to be held in memory without need."""
    return sum(file.stat().st_size for file in files) >= STORED_FROM


@dataclass(frozen=True)
class StoredRecords:
    """The records of files, which are read again each time that they are gone through.

    Args:
        source: What names the files, for messages.
        files: To read.
        split: The value that a record's column ``split`` must have.
    """

    source: str | Path
    files: Sequence[Path]
    split: str | None = None

    def __iter__(self) -> Iterator[Record]:
        """Read them.

        Raises:
            DataError: A file is unreadable, or none of the records is of the split.
        """
        records = read_files(self.files)
        return records if self.split is None else _of_split(records, self.source, self.split)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL that ``read_rows`` reads back; the file appears whole or not at all."""
    with (
        written_whole(Path(path)) as beside,
        beside.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for row in rows:
            values = {f.name: as_json(getattr(row, f.name)) for f in fields(row)}
            values = {name: value for name, value in values.items() if value is not None}
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


def as_json(value: Any) -> Any:
    """A row's value as JSON holds it: turns become messages, tuples lists."""
    if isinstance(value, Turn):
        return message(value)
    return list(map(as_json, value)) if isinstance(value, tuple) else value


def first_available(source: str | Sequence[str]) -> str:
    """The first of several sources that exists; a hub id counts as existing.

    Raises:
        DataError: None of them exists.
    """
    named = [source] if isinstance(source, str) else list(source)
    for name in named:
        if Path(name).expanduser().exists():
            return name
        try:
            if data_files(name) is None:
                return name
        except DataError:
            continue
    raise DataError(
        f"none of these is there: {', '.join(named) or '(no source named)'}. Give the path of a "
        "file that exists, or a hub id."
    )


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
    ask_hub()  # before the import, which reads whether it answers
    # Imported here: it takes long, and most runs read files.
    from datasets import load_dataset

    retries = logging.getLogger("huggingface_hub")
    level = retries.level
    retries.setLevel(logging.ERROR)  # the library would report every retry; one message is enough
    try:
        parts = {"name": config, "data_dir": folder}
        chosen = {key: value for key, value in parts.items() if value is not None}
        table = load_dataset(name, split=split, **chosen)
    except Exception as problem:  # datasets raises the errors of many libraries
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


def _of_split(records: Iterable[Record], source: str | Path, split: str) -> Iterator[Record]:
    values, named = set[str](), False
    for record in records:
        fields = record.fields or {}
        values.add(str(fields.get("split")))
        named = named or "split" in fields
        if record.fields is None or str(fields.get("split")) == split:
            yield record
    if not named:
        raise DataError(f"{source}: no column 'split' to pick {split!r} from. Leave split out.")
    if split not in values:
        raise DataError(f"{source}: no rows of split {split!r}. Splits found: {sorted(values)}.")


def _renamed(
    records: Iterable[Record], columns: Mapping[str, str], report: RowReport
) -> Iterable[Record]:
    found = sorted({name for record in records for name in record.fields or ()})
    for ours, theirs in columns.items():
        if theirs not in found:
            raise DataError(
                f"{report.source}: missing column {theirs} (columns: {{{ours}: {theirs}}}). "
                f"Columns found: {', '.join(map(printable, found)) or 'none'}."
            )
    hidden = sorted(set(columns) & set(found) - set(columns.values()))
    if hidden:
        report.notes.append(f"columns gives other columns the names of {', '.join(hidden)}")
    return Changed(records, partial(_rename, columns=columns))


def _rename(found: Fields, columns: Mapping[str, str]) -> Fields:
    renamed = {name: value for name, value in found.items() if name not in columns}
    return renamed | {ours: found[name] for ours, name in columns.items() if name in found}
