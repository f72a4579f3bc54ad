"""Raters of the toy world: they know the rule, but each has a level of its own and makes mistakes.

A rater sees a review's worth as gold score + own offset + own noise. Asked for a rating, that is
the answer. Asked to compare or to rank, it orders what it sees: its offset cancels.

The noise is Gumbel's with mean 0, scaled by rater. The larger of two such numbers is distributed as
in Bradley-Terry, the order of several as in Plackett-Luce, with the gold scores over the rater's
scale as rewards (Train 2009, Discrete Choice Methods with Simulation, chapter 3). So every loss
is correct for one rater; none knows who rated.

Everything is a pure function of (seed, row).
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from alignlab.bounds import Count, Seed
from alignlab.data.rows import PreferencePair, Prompt, Ranking, RatedCompletion
from alignlab.data.sources import read_rows, write_rows
from alignlab.errors import ConfigError
from alignlab.worlds.toy import sentiment, write_completion

EULER = 0.5772156649015329  # the mean of the standard Gumbel distribution


@dataclass(frozen=True, slots=True)
class Rater:
    """Somebody who judges: ``offset`` shifts all ratings, ``noise`` scales the mistakes."""

    offset: float
    noise: float

    def sees(self, text: str, luck: random.Random) -> float:
        """What the review seems worth this time, before the offset."""
        gumbel = -math.log(-math.log(luck.random() or 0.5))
        return sentiment(text) + self.noise * (gumbel - EULER)


def write_judgements(
    *,
    out: Path,
    prompts: str,
    judgements: Count = 2048,
    raters: Count = 8,
    offset_deviation: float = 2.0,
    noise: tuple[float, float] = (0.5, 2.0),
    ranking_size: Count = 4,
    seed: Seed = 0,
) -> None:
    """Stage: the same raters' ratings, comparisons and rankings of reviews, on one budget.

    A judgement is a rating of one review, or a choice between two; a ranking of K reviews counts as
    K judgements. Writes ``ratings.jsonl``, ``ratings_even.jsonl`` (as if all raters had the same
    level), ``ratings_centred.jsonl`` (each less its rater's mean rating), ``comparisons.jsonl``,
    ``rankings.jsonl`` and ``summary.json``.

    Args:
        out: Folder to write into.
        prompts: File of the toy world's prompts.
        judgements: The budget of each kind.
        raters: How many people; each row's is drawn anew.
        offset_deviation: Standard deviation of the raters' offsets, in units of the gold score.
        noise: Least and largest scale of a rater's noise, spread evenly in the logarithm.
        ranking_size: Reviews in a ranking.
        seed: Raters, reviews and mistakes are functions of it.

    Raises:
        ConfigError: An impossible value.
    """
    if not 0 < noise[0] <= noise[1] or offset_deviation < 0 or raters < 1:
        raise ConfigError(
            "judgements need raters >= 1, offset_deviation >= 0 and 0 < noise[0] <= noise[1], got "
            f"{raters}, {offset_deviation}, {tuple(noise)}."
        )
    if ranking_size < 2 or judgements < ranking_size:
        raise ConfigError(
            "judgements need ranking_size >= 2 and at least one ranking's budget, got "
            f"ranking_size {ranking_size} and {judgements} judgements."
        )
    world = World(
        [str(row.prompt) for row in read_rows(prompts, Prompt)[0]],
        _hire(raters, offset_deviation, noise, seed),
        seed,
    )
    rated = [world.rating(row) for row in range(judgements)]
    pairs = [world.comparison(row) for row in range(judgements)]
    rankings = [world.ranking(row, ranking_size) for row in range(judgements // ranking_size)]
    people, ratings = [person for person, _ in rated], [row for _, row in rated]
    write_rows(out / "ratings.jsonl", ratings)
    offsets = [world.raters[person].offset for person in people]
    write_rows(out / "ratings_even.jsonl", _less(ratings, offsets))
    write_rows(out / "ratings_centred.jsonl", _less(ratings, _means(people, ratings)))
    write_rows(out / "comparisons.jsonl", pairs)
    write_rows(out / "rankings.jsonl", rankings)
    right = [_right(sentiment(str(p.chosen)) - sentiment(str(p.rejected))) for p in pairs]
    summary = {
        "raters": [asdict(rater) for rater in world.raters],
        "judgements": judgements,
        "reviews_read": {
            "ratings": judgements,
            "comparisons": 2 * judgements,
            "rankings": len(rankings) * ranking_size,
        },
        "comparisons_that_agree_with_gold": fmean(right),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def write_gold(*, out: Path, prompts: str, completions: Count = 8, seed: Seed = 0) -> None:
    """Stage: ``gold.jsonl``, different reviews of every prompt with the rule's own score.

    Args:
        out: Folder to write into.
        prompts: File of the toy world's prompts.
        completions: Reviews of each.
        seed: The reviews are a function of it.
    """
    rows = []
    for row in read_rows(prompts, Prompt)[0]:
        texts = _reviews(str(row.prompt), completions, random.Random(f"{seed}/gold/{row.id}"))
        rows += [
            RatedCompletion(f"{row.id}#{k}", row.prompt, text, sentiment(text))
            for k, text in enumerate(texts)
        ]
    write_rows(out / "gold.jsonl", rows)


@dataclass(frozen=True, slots=True)
class World:
    """Prompts to write reviews for and people to judge them; a row follows from its number."""

    prompts: Sequence[str]
    raters: Sequence[Rater]
    seed: int

    def rating(self, row: int) -> tuple[int, RatedCompletion]:
        """One review rated, and the number of who rated it."""
        luck, prompt, person, (text,) = self._task("rating", row, 1)
        rater = self.raters[person]
        seen = rater.sees(text, luck) + rater.offset
        return person, RatedCompletion(f"rating-{row}", prompt, text, seen)

    def comparison(self, row: int) -> PreferencePair:
        """Two reviews of a prompt; the one that seems better is chosen."""
        luck, prompt, person, texts = self._task("comparison", row, 2)
        first, second = (self.raters[person].sees(text, luck) for text in texts)
        chosen, rejected = texts if first > second else texts[::-1]
        return PreferencePair(f"comparison-{row}", prompt, chosen, rejected)

    def ranking(self, row: int, size: int) -> Ranking:
        """``size`` reviews of a prompt in the order in which they seem good."""
        luck, prompt, person, texts = self._task("ranking", row, size)
        seen = [self.raters[person].sees(text, luck) for text in texts]
        order = sorted(seen, reverse=True)
        return Ranking(f"ranking-{row}", prompt, tuple(texts), tuple(map(order.index, seen)))

    def _task(self, kind: str, row: int, size: int) -> tuple[random.Random, str, int, list[str]]:
        luck = random.Random(f"{self.seed}/{kind}/{row}")
        prompt = self.prompts[luck.randrange(len(self.prompts))]
        person = luck.randrange(len(self.raters))
        return luck, prompt, person, _reviews(prompt, size, luck)


def _hire(
    count: int, offset_deviation: float, noise: tuple[float, float], seed: int
) -> list[Rater]:
    luck = random.Random(f"{seed}/raters")
    low, high = map(math.log, noise)
    return [
        Rater(luck.gauss(0, 1) * offset_deviation, math.exp(luck.uniform(low, high)))
        for _ in range(count)
    ]


def _reviews(prompt: str, count: int, luck: random.Random) -> list[str]:
    """Different reviews by the grammar."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[write_completion(prompt, luck.random)] = None
    return list(texts)


def _means(people: Sequence[int], ratings: Sequence[RatedCompletion]) -> list[float]:
    """Of each rating, the mean of all ratings by the same person."""
    given: dict[int, list[float]] = {}
    for person, row in zip(people, ratings, strict=True):
        given.setdefault(person, []).append(row.rating)
    means = {person: fmean(numbers) for person, numbers in given.items()}
    return [means[person] for person in people]


def _less(ratings: Sequence[RatedCompletion], offsets: Sequence[float]) -> list[RatedCompletion]:
    return [
        replace(row, rating=row.rating - offset)
        for row, offset in zip(ratings, offsets, strict=True)
    ]


def _right(gap: float) -> float:
    return 0.5 if gap == 0 else float(gap > 0)
