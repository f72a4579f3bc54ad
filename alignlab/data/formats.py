"""From records (a line of JSON, a row of a table) to typed rows.

Which columns a set has decides its layout once, for the whole set; whether a text is plain or a
conversation is what most of its rows are. Every row is then held to that, one by one, so a set
whose first row is odd is not read wrongly, and an odd row is counted instead of guessed at.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from alignlab.data.dialects import in_their_words, translated, with_context
from alignlab.data.rows.base import Completable, R, Row
from alignlab.data.rows.nested import mostly_chats, printable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.report import RowReport
from alignlab.data.rows.values import Fields, Record, Refused
from alignlab.errors import ConfigError, DataError

LEADS = ("completion", "chosen", "messages", "prompt")  # the first says what a row's texts are
TEXTS = (*LEADS, "rejected")  # the columns that are plain or conversations


def to_rows(
    records: Sequence[Record],
    kind: type[R],
    report: RowReport,
    limit: int | None = None,
    columns: Collection[str] = (),
    picked: Collection[str] = (),
) -> list[R]:
    """The first ``limit`` typed rows of all records of one set, which ``report`` counts.

    The user has given names to ``columns``, so each must be read; ``picked`` are columns that the
    records were chosen by.

    Raises:
        DataError: A column is missing in the whole set, or no row can be used.
        ConfigError: One of ``columns`` is no column of this kind of row.
    """
    found = sorted({name for record in records for name in record.fields or ()})
    written: Mapping[str, Sequence[str]] = {}
    if {"conversations", "instruction"} & set(found):
        records, written = translated(records, found)
    readable = [record.fields for record in records if record.fields is not None]
    read = _reader(kind, readable, report, {"id", *picked}) if readable else None
    if read is not None and any(".csv" in record.where for record in records):
        report.notes += _empty_cells(records, read.columns)
    rows: list[R] = []
    taken: dict[str, int] = {}
    repeated: list[str] = []
    for record in records:
        if len(rows) == limit:
            break
        report.seen += 1
        name = _name(record, taken, repeated)
        try:
            rows.append(_row(kind, record, read, name))
        except Refused as problem:
            report.add(record.where, in_their_words(problem, written) if written else problem)
    if repeated:
        report.notes.append(
            f"ids repeat in {len(repeated):,} rows, which are told apart by a number: {repeated[0]}"
        )
    if read is not None and columns:
        _check_columns(columns, read.used, kind, report.source)
    used = {old for new in read.used for old in written.get(new, (new,))} if read else set()
    for name in sorted(set(found) - used):
        if holds := sum(fields.get(name) not in (None, "", [], {}) for fields in readable):
            report.unused[printable(name) or "(without a name)"] = holds
    report.require_rows(len(rows))
    return rows


def _check_columns(columns: Collection[str], used: set[str], kind: type[Row], source: str) -> None:
    if unread := sorted(set(columns) - used):
        raise ConfigError(
            f"columns gives a column the name {unread[0]}, which no {kind.__name__} of "
            f"{source} reads. It reads {', '.join(sorted(used))}."
        )


def _reader(
    kind: type[Row], records: Sequence[Fields], report: RowReport, used: set[str]
) -> Reader:
    """How a data set is read: by the first of the kind's sets of columns that it has.

    Raises:
        DataError: None is there.
    """
    found = {name for fields in records for name in fields}
    columns = next((needs for needs in kind.COLUMNS if found.issuperset(needs)), None)
    if columns is None:
        raise _missing(kind, sorted(found), report.source)
    chats = mostly_chats(TEXTS, records)
    lead = next((name for name in LEADS if name in columns), "")
    whole = "prompt" in columns and lead != "prompt"
    whole = whole and sum(_repeats(fields, lead) for fields in records) > len(records) / 2
    if whole:
        report.notes.append(f"prompts are taken off {lead!r}, which repeats them")
    return Reader(columns, chats, lead in chats, whole, used)


def _row(kind: type[R], record: Record, read: Reader | None, name: str) -> R:
    if record.fields is None or read is None:
        raise Refused("not readable as a row", f" ({record.problem})")
    read = replace(read, id=name, fields=record.fields)
    try:
        row = kind.parse(read)
        if isinstance(row, Completable) and not isinstance(row.prompt, str):
            row = with_context(read, row)
        row.check()
    except RecursionError as problem:
        raise Refused("nested too deeply") from problem
    return row


def _name(record: Record, taken: dict[str, int], repeated: list[str]) -> str:
    """The row's own id, or its place in the source; a number is added if that id is taken.

    Users may give several rows one id, but results are joined by name. ``repeated`` gets a remark.
    """
    own = (record.fields or {}).get("id")
    wanted = printable(str(own)) if isinstance(own, int | str) and own != "" else record.where
    name, number = wanted, taken.get(wanted, 1)
    while name in taken:
        number += 1
        name = f"{wanted}#{number}"
    if name != wanted:
        repeated.append(f"{record.where} is called {name}")
    taken |= {name: 1, wanted: number}
    return name


def _repeats(fields: Fields, lead: str) -> bool:
    """Whether a completion repeats the (non-empty) prompt at its start, as in dialogue files.

    Of a text the prompt must be whole words there: "the" is no beginning of "then".
    """
    prompt, whole = fields.get("prompt"), fields.get(lead, "")
    if not isinstance(prompt, str | list | tuple) or type(whole) is not type(prompt):
        return False
    if not prompt or whole[: len(prompt)] != prompt:
        return False
    return not isinstance(whole, str) or not re.match(r"\w\w", whole[len(prompt) - 1 :])


def _missing(kind: type[Row], found: Sequence[str], source: str) -> DataError:
    """Says which column is missing, which were found and what would do."""
    wanted = " or ".join(map(" + ".join, kind.COLUMNS))
    closest = min(kind.COLUMNS, key=lambda needs: len(set(needs) - set(found)))
    missing = ", ".join(name for name in closest if name not in found)
    found = [printable(name) for name in found if name]
    return DataError(
        f"{source}: missing column {missing}; a {kind.__name__} needs {wanted}. "
        f"Columns found: {', '.join(found) or 'none'}. Rename them, or map them with columns, e.g. "
        f"columns: {{{closest[0]}: {next(iter(found), 'name')}}}."
    )


def _empty_cells(records: Sequence[Record], needs: Sequence[str]) -> list[str]:
    """The message about empty cells in required columns of a CSV."""
    cells = [record.fields for record in records if record.fields and ".csv" in record.where]
    empty = sum(any(fields.get(name) is None for name in needs) for fields in cells)
    told = f"{empty:,} rows have an empty cell, which in CSV is no value, not an empty text"
    return [told] if empty else []
