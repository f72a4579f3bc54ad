"""One source, read once: its report, its lengths, its repeats, and some of its rows."""

import random
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from alignlab.data.files import data_files, format_of
from alignlab.data.formats import kind_of
from alignlab.data.repeats import Repeats
from alignlab.data.rows import (
    Candidates,
    Completable,
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    Ranking,
    RatedCompletion,
    Record,
    Refused,
    Row,
    RowReport,
    Text,
)
from alignlab.data.rows.guesses import unknown
from alignlab.data.rows.judged import check_both
from alignlab.data.sources import records_of, typed_rows
from alignlab.errors import DataError

# How a row is asked for, and the data module that trains on it; recognised in this order.
KINDS: dict[str, tuple[type[Row], str]] = {
    "pair": (PreferencePair, "PreferenceData"),
    "ranking": (Ranking, "RankingData"),
    "candidates": (Candidates, "CandidateData"),
    "rated": (RatedCompletion, "RatingData"),
    "judged": (JudgedCompletion, "JudgedData"),
    "demonstration": (Demonstration, "DemonstrationData"),
    "text": (LabelledText, "TextData"),
    "prompt": (Prompt, "PromptData"),
}
MODULES = dict(KINDS.values())
SAMPLE = 2000  # rows that are kept, to be tokenised and shown
PEEK = 1000  # records whose columns say which kind of row a source holds
QUANTILES = {"shortest": 0.0, "median": 0.5, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}
Seen = Callable[[int, Row], None]  # is given each usable row and its place


@dataclass
class Listening(RowReport):
    """A report that passes on each refused row: its name and the reason."""

    told: Callable[[str, Refused], None] = lambda name, problem: None

    def add(self, id: str, problem: Refused) -> None:
        """Count the row, and pass it on."""
        RowReport.add(self, id, problem)
        self.told(id, problem)


@dataclass(frozen=True)
class Source:
    """What is read, and how.

    Args:
        name: A file, a folder, a pattern or a hub id.
        kind: A row type; what the columns say if left out.
        split: As in ``TreeData``, like ``columns``.
        columns: Expected name of a column -> its name in the source.
    """

    name: str
    kind: type[Row] | None = None
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def records(self) -> Iterable[Record]:
        """All records, which can be gone through several times."""
        return records_of(self.name, self.split)

    def rows(self, records: Iterable[Record], report: RowReport) -> Iterator[Row]:
        """The usable rows of records.

        Raises:
            DataError: No kind of row has such columns, or no row can be used.
        """
        kind = self.kind or self._recognised(records)
        return typed_rows(records, kind, report, self.split, None, self.columns)

    def _recognised(self, records: Iterable[Record]) -> type[Row]:
        names = {name for record in islice(records, PEEK) for name in record.fields or ()}
        names = (names - set(self.columns.values())) | set(self.columns)
        kind = kind_of(names, list(MODULES))
        # No kind: the error names what the closest one needs.
        near = (k for k in MODULES if not min(unknown(needs, names) for needs in k.COLUMNS))
        pair = {"chosen", "rejected"} & names
        return kind or next(near, PreferencePair if pair else Demonstration)


@dataclass
class Survey:
    """What was found in a source; the places of rows are those among the usable ones.

    Attributes:
        ids: Of each usable row, by its place.
        words: For each part of a row, such as ``chosen``, how many words each has.
        sample: Up to ``SAMPLE`` rows drawn at random, in their order.
        glued: Places of rows whose completion follows the prompt's last word without a separator.
        longer: Pairs whose chosen completion has more words than the rejected one.
        desirable: Completions that were judged so.
        stops: Why training would not begin, a sentence each.
    """

    source: Source
    report: RowReport
    kind: type[Row] = Row
    repeats: Repeats = field(default_factory=Repeats)
    ids: list[str] = field(default_factory=list)
    words: dict[str, "array[int]"] = field(default_factory=dict)
    sample: list[Row] = field(default_factory=list)
    glued: list[int] = field(default_factory=list)
    longer: int = 0
    desirable: int = 0
    stops: list[str] = field(default_factory=list)

    @property
    def file_format(self) -> str:
        """The type of the files, such as ``.jsonl``, with their number and size."""
        files = data_files(self.source.name)
        if files is None:
            return "a data set of the hub"
        size = sum(file.stat().st_size for file in files) / 1e6
        types = ", ".join(sorted({str(format_of(file)) for file in files}))
        return f"{types}, {len(files):,} file(s), {size:,.1f} MB"

    @property
    def labels(self) -> dict[str, int]:
        """How many completions have each judgement; empty for other rows."""
        if self.kind is not JudgedCompletion:
            return {}
        return {"desirable": self.desirable, "undesirable": len(self.ids) - self.desirable}

    @property
    def template(self) -> str:
        """What a prompt and its completion are rendered with."""
        read_as, first = self.report.read_as, self.sample[0]
        if isinstance(first, Completable) and not isinstance(first.prompt, str):
            return "the tokenizer's chat template"
        if " from instruction + " in read_as:
            return "Alpaca's prompt around instruction and input"
        if read_as.startswith("PreferencePair from chosen + rejected:"):
            return "dialogues as in HH: the prompt ends at the last '\\n\\nAssistant:' they share"
        if isinstance(first, LabelledText | Prompt):
            return "none"
        return "none: prompt and completion are joined as they are, without a separator"

    def named(self, places: Iterable[int]) -> list[str]:
        """The ids of rows by their places."""
        return [self.ids[place] for place in places]


def survey(source: Source, see: Seen = lambda place, row: None) -> Survey:
    """Go through a source; ``see`` is given each usable row.

    Raises:
        DataError: It is missing or unreadable, or no row of it can be used.
    """
    found = Survey(source, RowReport(source.name))
    draw, places = random.Random(0), list[int]()
    rows = found.repeats.watch(source.rows(source.records(), found.report))
    for place, row in enumerate(rows):
        found.kind = type(row)
        found.ids.append(row.id)
        _measure(found, place, row)
        see(place, row)
        spot = len(places) if len(places) < SAMPLE else draw.randrange(place + 1)
        if spot < SAMPLE:
            places[spot : spot + 1], found.sample[spot : spot + 1] = [place], [row]
    found.sample = [row for _, row in sorted(zip(places, found.sample, strict=True), key=_first)]
    found.report.repeats = found.repeats.counts()
    if found.kind is JudgedCompletion:
        try:
            check_both(source.name, len(found.ids), found.desirable)
        except DataError as problem:
            found.stops.append(str(problem))
    return found


def _first(pair: tuple[int, Row]) -> int:
    return pair[0]


def _measure(found: Survey, place: int, row: Row) -> None:
    """Count the words of a row's parts."""
    if not isinstance(row, Completable):
        _count(found, "text", words_in(row.shared))
        return
    prompt, branches = words_in(row.prompt), row.branches()
    _count(found, "prompt", prompt)
    lengths = [words_in(branch.text) for branch in branches]
    for branch, length in zip(branches, lengths, strict=True):
        _count(found, branch.column, length)
    if any(_is_glued(row.prompt, branch.text) for branch in branches):
        found.glued.append(place)
    if branches:
        _count(found, "prompt + longest completion", prompt + max(lengths))
    if isinstance(row, PreferencePair):
        found.longer += lengths[0] > lengths[1]
    if isinstance(row, JudgedCompletion):
        found.desirable += row.label == "desirable"


def _count(found: Survey, part: str, words: int) -> None:
    if part not in found.words:
        found.words[part] = array("q")
    found.words[part].append(words)


def texts_of(text: Text) -> list[str]:
    """A string, or what each turn of a conversation says."""
    return [text] if isinstance(text, str) else [turn.content for turn in text]


def words_in(text: Text) -> int:
    """How many words there are, separated by white space."""
    return sum(len(part.split()) for part in texts_of(text))


def _is_glued(prompt: Text, completion: Text) -> bool:
    """Whether the two are joined without a separator."""
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return False
    return re.fullmatch(r"\S\S", prompt[-1:] + completion[:1]) is not None


def quantiles(lengths: Any) -> dict[str, int]:
    """Of whole numbers: the least of them that the stated share does not exceed."""
    values = np.quantile(np.asarray(lengths), list(QUANTILES.values()), method="inverted_cdf")
    return {name: int(value) for name, value in zip(QUANTILES, values, strict=True)}
