"""Rated completions."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Text, check_number


@dataclass(frozen=True, slots=True)
class RatedCompletion(Completable):
    """A completion and the number that somebody gave it; larger is better."""

    COLUMNS = (("prompt", "completion", "rating"),)
    completion: Text
    rating: float
    ends: bool = True

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The three columns, and ``ends``."""
        prompt, completion = read.prompt_and("completion")
        ends, rating = read.flag("ends"), read.number("rating")
        if rating is None:
            raise Refused("missing column 'rating'")
        return cls(read.id, prompt, completion, rating, ends)

    def check(self) -> None:
        """Refuse ratings that are not finite, too."""
        Completable.check(self)
        check_number("rating", self.rating)

    def branches(self) -> list[Branch]:
        """The completion."""
        return [Branch("completion", self.completion, self.ends)]

    @property
    def labels(self) -> tuple[float, ...]:
        """The rating."""
        return (self.rating,)
