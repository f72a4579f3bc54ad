"""What a test set shares with the training rows: whole rows, prompts, runs of words.

A run of 13 words in both suggests that test text was trained on, but most such runs are templates
and set phrases. So each is shown with the number of training rows that it occurs in: a run in one
or two of them is worth reading, one in thousands is not.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from alignlab.check_data.survey import texts_of
from alignlab.data.repeats import Repeats
from alignlab.data.rows import Completable, Row
from alignlab.data.rows.split import short_hash

RUN = 13  # words, as in GPT-3 (arXiv:2005.14165, appendix C); of a shorter text the whole
SHORTEST = 5  # words of a text that is searched for; shorter ones are only compared as whole rows
RARE = 10  # a run in more training rows than this is not worth reading
ROOM = 5_000_000  # words of the test set that are searched for
AT_ONCE = 200_000  # words of training rows that are looked up together
# Case and punctuation make no difference; scripts without spaces count a word a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_BITS = 24  # of a table that most runs of training rows are not in


@dataclass(frozen=True)
class Passage:
    """A run of words that test and training rows share, the longest around its rarest part.

    Args:
        text: As the test row has it.
        words: How many.
        train_rows: Training rows that hold its rarest part.
        test_rows: Test rows whose rarest shared part it is.
        test_id: The first of them.
        train_id: The first of the training rows.
    """

    text: str
    words: int
    train_rows: int
    test_rows: int
    test_id: str
    train_id: str

    @property
    def rare(self) -> bool:
        """Whether it is in too few training rows to be a set phrase."""
        return self.train_rows <= RARE


@dataclass(frozen=True)
class Overlap:
    """What the test set shares with the training rows.

    Args:
        rows: Places of test rows that are training rows, too.
        prompts: Places of test rows whose prompt, or whole text, is in the training rows.
        passages: Shared runs of words, the rarest first.
        searched: Test rows that were searched for runs.
        of: Test rows.
    """

    rows: Any
    prompts: Any
    passages: list[Passage]
    searched: int
    of: int


class Runs:
    """Runs of words of test rows, which training rows are searched for.

    First ``hold`` every test row, then ``look`` at every training row, then ask for ``passages``.
    """

    def __init__(self) -> None:
        self._texts: list[tuple[int, str, str]] = []  # place and id of the row, text
        self._words, self.rows = 0, 0
        self._buffer: list[tuple[int, Any]] = []
        self._buffered = 0
        self._names: dict[int, str] = {}  # of the training rows in the buffer
        self._firsts: dict[int, str] = {}  # of those that have a run first
        self._index: _Index | None = None

    def hold(self, place: int, row: Row) -> None:
        """Take in a test row, while there is room."""
        if self._words >= ROOM:
            return
        self.rows += 1
        for text in _parts(row):
            self._texts.append((place, row.id, text))
            self._words += text.count(" ") + 1

    def look(self, place: int, row: Row) -> None:
        """Search a training row."""
        texts = [hashes for text in _parts(row) if len(hashes := _hashes(text)) >= SHORTEST]
        self._buffer += [(place, hashes) for hashes in texts]
        self._buffered += sum(map(len, texts))
        self._names[place] = row.id
        if self._buffered >= AT_ONCE:
            self._search()

    def _search(self) -> None:
        if self._index is None:
            self._index = _Index([_hashes(text) for *_, text in self._texts])
        buffer, self._buffer, self._buffered = self._buffer, [], 0
        names, self._names = self._names, {}
        firsts = self._index.search([row for row, _ in buffer], [hashes for _, hashes in buffer])
        self._firsts |= {place: names[place] for place in firsts}

    def passages(self) -> list[Passage]:
        """Shared runs, one for each rarest part; the rarest first, of those the longest."""
        self._search()
        assert self._index is not None
        best: dict[int, tuple[int, int, int, int, int]] = {}  # test row -> its rarest run
        for number, (place, _, _) in enumerate(self._texts):
            for count, run, start, end in self._index.runs(number):
                found = (count, start - end, number, start, run)
                best[place] = min(best.get(place, found), found)
        groups: dict[int, list[tuple[int, int, int, int, int]]] = {}
        for found in best.values():
            groups.setdefault(found[-1], []).append(found)
        made = [self._passage(run, group) for run, group in groups.items()]
        return sorted(made, key=lambda p: (p.train_rows, -p.words))

    def _passage(self, run: int, group: Sequence[tuple[int, int, int, int, int]]) -> Passage:
        assert self._index is not None
        count, minus, number, start, _ = min(group, key=lambda found: (found[1], found[2]))
        _, name, text = self._texts[number]
        spans = [match.span() for match in _WORD.finditer(text)]
        return Passage(
            text=text[spans[start][0] : spans[start - minus - 1][1]],
            words=-minus,
            train_rows=count,
            test_rows=len(group),
            test_id=name,
            train_id=self._firsts[int(self._index.first[run])],
        )


class _Index:
    """Hashes of runs of words, and in how many training rows each was found.

    Args:
        texts: Hashes of the words of each test text.
    """

    def __init__(self, texts: Sequence[Any]) -> None:
        runs = [_runs(text, min(RUN, max(len(text), 1))) if len(text) >= SHORTEST else text[:0]
                for text in texts]  # fmt: skip
        self.sizes = sorted({min(RUN, len(text)) for text in texts if len(text) >= SHORTEST})
        self._lengths = [min(RUN, len(text)) for text in texts]
        self._ends = np.cumsum([0, *map(len, runs)])
        self._known, self._which = np.unique(
            np.concatenate([np.empty(0, np.uint64), *runs]), return_inverse=True
        )
        self._table = np.zeros(1 << _BITS, bool)
        self._table[_short(self._known)] = True
        self.rows = np.zeros(len(self._known), np.int64)  # training rows with each run
        self.first = np.full(len(self._known), -1)  # the first of them

    def search(self, places: Sequence[int], texts: Sequence[Any]) -> set[int]:
        """Count the runs of training rows; all texts of a row come in one call.

        Returns:
            Places of rows that have a run first.
        """
        firsts = set[int]()
        if not texts:
            return firsts
        words = np.concatenate(texts)
        row = np.repeat(np.asarray(places), list(map(len, texts)))
        text = np.repeat(np.arange(len(texts)), list(map(len, texts)))
        rows = max(places) + 1
        for size in self.sizes:
            found = _runs(words, size)
            inside = text[: len(found)] == text[size - 1 :]
            near = np.flatnonzero(inside & self._table[_short(found)])
            at = np.searchsorted(self._known, found[near]).clip(max=len(self._known) - 1)
            right = self._known[at] == found[near]
            # Each run of each row once, by run and then by row.
            run, holder = np.divmod(np.unique(at[right] * rows + row[near[right]]), rows)
            np.add.at(self.rows, run, 1)
            new = self.first[run] < 0
            # Backwards, so that the first of several rows stays.
            self.first[run[new][::-1]] = holder[new][::-1]
            firsts.update(self.first[run[new]].tolist())
        return firsts

    def runs(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        """Shared stretches of a test text: least rows of a run in it, that run, first word, end."""
        which = self._which[self._ends[number] : self._ends[number + 1]]
        counts = self.rows[which]
        for shared, steps in groupby(range(len(which)), key=lambda k: bool(counts[k])):
            if shared:
                stretch = list(steps)
                rarest = min(stretch, key=lambda k: (counts[k], k))
                end = stretch[-1] + self._lengths[number]
                yield int(counts[rarest]), int(which[rarest]), stretch[0], end


def overlap(train: Repeats, test: Repeats, runs: Runs) -> Overlap:
    """What two sets share, after both were read."""
    return Overlap(
        np.flatnonzero(np.isin(np.asarray(test.whole), np.asarray(train.whole))),
        np.flatnonzero(np.isin(np.asarray(test.prompts), np.asarray(train.prompts))),
        runs.passages(),
        runs.rows,
        test.rows,
    )


def _parts(row: Row) -> list[str]:
    """The texts of a row; runs of words do not go from one to the next."""
    if not isinstance(row, Completable):
        return texts_of(row.shared)
    return [
        part
        for text in (row.prompt, *(branch.text for branch in row.branches()))
        for part in texts_of(text)
    ]


@lru_cache(maxsize=200_000)
def _hash(word: str) -> int:
    return short_hash(word)


def _hashes(text: str) -> Any:
    """A number of 64 bits for each word."""
    return np.asarray(array("Q", map(_hash, _WORD.findall(text.lower()))))


@lru_cache(maxsize=32)
def _powers(count: int) -> tuple[Any, Any]:
    """The powers of the base and of its inverse, from 0 to ``count`` - 1, modulo 2^64."""
    made = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        factors = np.full(count, base, np.uint64)
        factors[:1] = 1
        made.append(np.cumprod(factors))
    return made[0], made[1]


def _runs(words: Any, size: int) -> Any:
    """A hash of every ``size`` words that follow each other: sum of word j times base^-j."""
    count = len(words)
    if count < size:
        return words[:0]
    powers, inverses = (each[:count] for each in _powers(1 << max(count - 1, 1).bit_length()))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * inverses, dtype=np.uint64)])
    return (sums[size:] - sums[:-size]) * powers[: count - size + 1]


def _short(hashes: Any) -> Any:
    return (hashes >> np.uint64(64 - _BITS)).astype(np.int64)
