"""Candidates: several completions of one prompt, each with a rating."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Text, check_number


@dataclass(frozen=True, slots=True)
class Candidates(Completable):
    """Samples of one policy for a prompt and the reward of each; larger is better.

    A completion that was sampled twice occurs twice. ``ends`` says of each completion that it is
    complete; left out, all are.
    """

    COLUMNS = (("prompt", "completions", "ratings"),)
    completions: tuple[Text, ...]
    ratings: tuple[float, ...]
    ends: tuple[bool, ...] | None = None

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The three columns, and ``ends``."""
        completions = tuple(read.reply("completions", t) for t in read.texts("completions"))
        ratings = read.numbers("ratings")
        return cls(read.id, read.text("prompt"), completions, ratings, read.flags("ends"))

    def check(self) -> None:
        """Refuse lists that are empty, of different lengths, or that contradict themselves, too."""
        ends = self._ends()
        if not self.completions:
            raise Refused("no completion")
        if not len(self.completions) == len(self.ratings) == len(ends):
            raise Refused("'completions', 'ratings' and 'ends' differ in length")
        Completable.check(self)
        for rating in self.ratings:
            check_number("ratings", rating)
        texts = list(zip(self.completions, ends, strict=True))
        if len(set(texts)) < len(set(zip(texts, self.ratings, strict=True))):
            raise Refused("one completion has two ratings")

    def branches(self) -> list[Branch]:
        """The completions in their order."""
        texts = zip(self.completions, self._ends(), strict=True)
        return [Branch("completions", text, end) for text, end in texts]

    @property
    def labels(self) -> tuple[float, ...]:
        """The ratings."""
        return self.ratings

    def _ends(self) -> tuple[bool, ...]:
        return self.ends or (True,) * len(self.completions)
