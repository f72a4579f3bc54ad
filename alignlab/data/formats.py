"""From records (a line of JSON, a row of a table) to typed rows.

The columns of a data set decide its layout once, for the whole set; most of its rows decide whether
texts are plain or conversations. Each row must then match, so an odd first row does not change how
the set is read, and odd rows are refused and counted instead of guessed at.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from alignlab.data.dialects import in_their_words, translated, with_context
from alignlab.data.rows.base import Completable, R, Row
from alignlab.data.rows.guesses import mapping, unknown
from alignlab.data.rows.nested import ChatVote, printable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.report import RowReport
from alignlab.data.rows.split import short_hash
from alignlab.data.rows.values import Fields, Record, Refused
from alignlab.errors import ConfigError, DataError

LEADS = ("completion", "chosen", "messages", "prompt")  # the first says what a row's texts are
TEXTS = (*LEADS, "rejected")  # the columns that are plain or conversations


def to_rows(records: Iterable[Record], kind: type[R], report: RowReport) -> list[R]:
    """All typed rows of one set, which ``report`` counts; see ``iter_rows``."""
    return list(iter_rows(records, kind, report))


def iter_rows(
    records: Iterable[Record],
    kind: type[R],
    report: RowReport,
    limit: int | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    picked: Collection[str] = (),
) -> Iterator[R]:
    """Yield the first ``limit`` typed rows of all records of one set, which ``report`` counts.

    The records are read twice: first to see what the set holds, then to parse it. The user named
    ``columns``, so each must be used; ``picked`` are columns that the records were selected by.

    Raises:
        DataError: A column is missing in the whole set, or no row can be used.
        ConfigError: One of ``columns`` is not read by this kind of row.
    """
    found = theirs = _Columns(records, kind)
    written: Mapping[str, Sequence[str]] = {}
    if {"conversations", "instruction"} & set(theirs.values):
        records, written = translated(records, theirs.values)
        found = _Columns(records, kind) if written else theirs
    read = _reader(kind, found, report, {"id", *picked}) if found.rows else None
    if read is not None:
        report.read_as = _read_as(kind, read, written)
        if empty := found.empty_cells[read.columns]:
            report.notes.append(
                f"{empty:,} rows have an empty cell, which CSV reads as no value, not as empty text"
            )
    names, made = _Names(given="id" in theirs.values), 0
    for record in records:
        if made == limit:
            break
        report.seen += 1
        name = names.of(record)
        try:
            row = _row(kind, record, read, name)
        except Refused as problem:
            report.add(record.where, in_their_words(problem, written) if written else problem)
            continue
        made += 1
        yield row
    if names.repeated:
        report.notes.append(
            f"ids repeat in {names.repeated:,} rows, which are told apart by a number: "
            f"{names.example}"
        )
    used = {old for new in read.used for old in written.get(new, (new,))} if read else set()
    if read is not None and columns:
        _check_columns(columns, used | read.used, kind, report.source)
    used |= {columns[new] for new in used & set(columns)}
    report.unused |= {
        printable(name) or "(without a name)": holds
        for name, holds in sorted(theirs.values.items())
        if holds and name not in used
    }
    report.require_rows(made)


class _Columns:
    """What the columns of a set hold, counted in one pass over its records.

    Args:
        records: Of the set.
        kind: Whose sets of columns are looked for.
    """

    def __init__(self, records: Iterable[Record], kind: type[Row]) -> None:
        self.rows = 0  # that could be read
        self.values: Counter[str] = Counter()  # how many values each column has
        self.votes = {name: ChatVote() for name in TEXTS}
        self.repeats: Counter[str] = Counter()  # rows in which a column begins with the prompt
        # For each set of columns the rows of a CSV that lack a value of it.
        self.empty_cells: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for record in records:
            if record.fields is not None:
                self._count(record.fields)
            if record.fields and ".csv" in record.where:
                for needs in kind.COLUMNS:
                    self.empty_cells[needs] += any(record.fields.get(n) is None for n in needs)

    def _count(self, fields: Fields) -> None:
        self.rows += 1
        for name, value in fields.items():
            self.values[name] += value not in (None, "", [], {})
            if name in self.votes:
                self.votes[name].count(value)
        if fields.get("prompt"):
            for lead in LEADS:
                self.repeats[lead] += _repeats(fields, lead)


def _check_columns(columns: Collection[str], used: set[str], kind: type[Row], source: str) -> None:
    if unread := sorted(set(columns) - used):
        raise ConfigError(
            f"columns gives a column the name {unread[0]}, which no {kind.__name__} of "
            f"{source} reads. It reads {', '.join(sorted(used))}."
        )


def _reader(kind: type[Row], found: _Columns, report: RowReport, used: set[str]) -> Reader:
    """How a data set is read: by the first of the kind's sets of columns that it has.

    Raises:
        DataError: None is there.
    """
    columns = next((needs for needs in kind.COLUMNS if set(needs) <= set(found.values)), None)
    if columns is None:
        raise _missing(kind, sorted(found.values), report.source)
    chats = frozenset(name for name, vote in found.votes.items() if vote.won)
    lead = next((name for name in LEADS if name in columns), "")
    whole = "prompt" in columns and lead != "prompt"
    whole = whole and found.repeats[lead] > found.rows / 2
    if whole:
        report.notes.append(f"prompts are removed from {lead!r}, which begins with them")
    return Reader(columns, chats, lead in chats, whole, used)


def _read_as(kind: type[Row], read: Reader, written: Mapping[str, Sequence[str]]) -> str:
    """What was recognised, in the source's own words."""
    names = " + ".join(name for ours in read.columns for name in written.get(ours, (ours,)))
    return f"{kind.__name__} from {names}: {'conversations' if read.chat else 'plain text'}"


def kind_of(names: Collection[str], kinds: Sequence[type[Row]]) -> type[Row] | None:
    """The first of ``kinds`` that can be read from columns of these names."""
    _, written = translated((), names)
    return next(
        (kind for kind in kinds if any(set(needs) <= {*names, *written} for needs in kind.COLUMNS)),
        None,
    )


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


class _Names:
    """Names of rows, of which no two are alike.

    Users may give several rows one id, but results are joined by name. Of the names that are taken
    a hash is kept, and none where rows have no ids: the places of records differ.

    Args:
        given: Whether there are rows with an id of their own.
    """

    def __init__(self, given: bool) -> None:
        self.given, self.repeated, self.example = given, 0, ""
        self._taken: dict[int, int] = {}

    def of(self, record: Record) -> str:
        """The row's own id, else its place in the source; with a number where it is taken."""
        if not self.given:
            return record.where
        own = (record.fields or {}).get("id")
        wanted = printable(str(own)) if isinstance(own, int | str) and own != "" else record.where
        name, number = wanted, self._taken.get(short_hash(wanted), 1)
        while short_hash(name) in self._taken:
            number += 1
            name = f"{wanted}#{number}"
        if name != wanted:
            self.repeated += 1
            self.example = self.example or f"{record.where} is called {name}"
        self._taken |= {short_hash(name): 1, short_hash(wanted): number}
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

    def distance(needs: tuple[str, ...]) -> tuple[bool, int, int]:
        odd = unknown(needs, found)
        return odd == len(needs), odd, len(set(needs) - set(found)) if odd else 0

    closest = min(kind.COLUMNS, key=distance)
    if unknown(closest, found) == len(closest):
        closest = kind.COLUMNS[0]
    missing = [name for name in closest if name not in found]
    found = [printable(name) for name in found if name]
    return DataError(
        f"{source}: missing column {', '.join(missing)}; a {kind.__name__} needs {wanted}. "
        f"Columns found: {', '.join(found) or 'none'}. Rename them, or map them with columns, e.g. "
        f"{mapping(missing, found)}."
    )
