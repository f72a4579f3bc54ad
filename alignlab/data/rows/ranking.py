"""Rankings: several completions of one prompt and their ranks."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Text, check_completion, check_text


@dataclass(frozen=True, slots=True)
class Ranking(Completable):
    """Completions of one prompt and how they rank: 0 is the best, equal ranks are a tie.

    ``ends`` says of each completion that it is complete; left out, all are.
    """

    COLUMNS = (("prompt", "completions", "ranks"),)
    completions: tuple[Text, ...]
    ranks: tuple[int, ...]
    ends: tuple[bool, ...] | None = None

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The three columns, and ``ends``; smaller ranks are better, whatever numbers they are."""
        completions = tuple(read.reply("completions", t) for t in read.texts("completions"))
        ranks = read.numbers("ranks")
        levels = sorted(set(ranks))
        dense = tuple(levels.index(rank) for rank in ranks)
        return cls(read.id, read.text("prompt"), completions, dense, read.flags("ends"))

    def check(self) -> None:
        """Refuse lists of different lengths, and ranks that say nothing or contradict, too."""
        check_text("prompt", self.prompt)
        ends = self.ends or (True,) * len(self.completions)
        if not len(self.completions) == len(self.ranks) == len(ends):
            raise Refused("'completions', 'ranks' and 'ends' differ in length")
        for completion in self.completions:
            check_completion("completions", completion)
        if len(set(self.ranks)) < 2:
            raise Refused("nothing to compare: fewer than two ranks")
        texts = list(zip(self.completions, ends, strict=True))
        if len(set(texts)) < len(set(zip(texts, self.ranks, strict=True))):
            raise Refused("one completion has two ranks")

    def branches(self) -> list[Branch]:
        """The completions in their order."""
        ends = self.ends or (True,) * len(self.completions)
        texts = zip(self.completions, ends, strict=True)
        return [Branch("completions", text, end) for text, end in texts]

    @property
    def labels(self) -> tuple[float, ...]:
        """The ranks."""
        return tuple(map(float, self.ranks))
