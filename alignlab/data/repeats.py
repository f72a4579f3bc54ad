"""Find duplicate rows, opposite judgements of the same texts, and cycles of preferences.

Only a few 64-bit hashes of each row are kept, so a file may be larger than memory.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np

from alignlab.data.cycles import strong_parts
from alignlab.data.rows import Completable, R, Ranking, Row, prompt_key
from alignlab.data.rows.pair import PreferencePair
from alignlab.data.rows.split import short_hash, text_key

COPY = "copies of earlier rows"
OPPOSED = "rows that others contradict"
CYCLIC = "rows in cycles of preferences"
_ODD = np.uint64(0x9E3779B97F4A7C15)  # makes one hash of two that are not commuted


class Repeats:
    """Compares rows while they are read; ``watch`` them all, then ask for ``found``.

    Rows are identified by their position among those that were watched. Texts are compared exactly:
    another case or spacing makes another text.
    """

    def __init__(self) -> None:
        self.rows, self.prompts, self.whole = 0, array("Q"), array("Q")  # hashes of each row
        # Preferences and labels: (the better completion, the worse one) or (completion, label).
        self._over, self._under, self._over_row = array("Q"), array("Q"), array("I")
        self._text, self._label, self._label_row = array("Q"), array("d"), array("I")

    def watch(self, rows: Iterable[R]) -> Iterator[R]:
        """Yield the same rows, and take each of them in."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: Row) -> None:
        """Take in one row."""
        texts = [short_hash(prompt_key(row))]
        self.prompts.append(texts[0])
        if isinstance(row, Completable):
            texts += [
                short_hash(f"{texts[0]}{branch.ends:d}{text_key(branch.text)}")
                for branch in row.branches()
            ]
        labels = row.labels if isinstance(row, Completable) else (getattr(row, "label", None),)
        self.whole.append(short_hash(repr((texts, labels))))
        if isinstance(row, PreferencePair):
            self._prefer(texts[1], texts[2])
        elif isinstance(row, Ranking):
            levels = [[t for t, r in zip(texts[1:], row.ranks, strict=True) if r == level]
                      for level in sorted(set(row.ranks))]  # fmt: skip
            for better, worse in pairwise(levels):
                for pair in product(better, worse):
                    self._prefer(*pair)
        elif labels is not None:
            for text, label in zip(texts[-len(labels) :], labels, strict=True):
                if label is not None:
                    self._text.append(text)
                    self._label.append(label)
                    self._label_row.append(self.rows)
        self.rows += 1

    def _prefer(self, better: int, worse: int) -> None:
        self._over.append(better)
        self._under.append(worse)
        self._over_row.append(self.rows)

    def found(self) -> dict[str, Any]:
        """The places of rows that are copies, contradicted or in a cycle: ascending, each once."""
        contradicted, cyclic = self._judgements()
        return {
            COPY: _repeated(np.asarray(self.whole)),
            OPPOSED: np.union1d(contradicted, self._labels()),
            CYCLIC: cyclic,
        }

    def counts(self) -> dict[str, int]:
        """How many rows of each kind were found; kinds without rows are left out."""
        return {what: len(places) for what, places in self.found().items() if len(places)}

    def _judgements(self) -> tuple[Any, Any]:
        """Rows whose opposite is there, and rows in cycles (which hold the former)."""
        over, under, row = map(np.asarray, (self._over, self._under, self._over_row))
        # A cycle needs a completion that wins and loses; most sets end here.
        both = _among(over, under) & _among(under, over)
        over, under, row = over[both], under[both], row[both]
        if not len(row):
            return row, row
        opposed = np.isin(over * _ODD + under, under * _ODD + over)
        names, ids = np.unique(np.concatenate([over, under]), return_inverse=True)
        starts, ends = ids[: len(row)], ids[len(row) :]
        part = strong_parts(starts, ends, len(names))
        return np.unique(row[opposed]), np.unique(row[part[starts] == part[ends]])

    def _labels(self) -> Any:
        """Rows of a text that has several labels."""
        text, label, row = map(np.asarray, (self._text, self._label, self._label_row))
        _, ids = np.unique(text, return_inverse=True)
        lowest, highest = np.full(len(ids), np.inf), np.full(len(ids), -np.inf)
        np.minimum.at(lowest, ids, label)
        np.maximum.at(highest, ids, label)
        return np.unique(row[lowest[ids] < highest[ids]])


def _repeated(values: Any) -> Any:
    """The places whose value an earlier place has; in less memory than ``numpy.unique`` takes."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    return np.sort(order[1:][ascending[1:] == ascending[:-1]])


def _among(values: Any, others: Any) -> Any:
    """Which values are among others; in less memory than ``numpy.isin`` takes."""
    if not len(others):
        return np.zeros(len(values), bool)
    known = np.sort(others)
    return known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values
