"""A match is two completions of one prompt; a verdict says which of them a judge prefers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from alignlab.winrate.memo import Memo


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A policy's completion beside an opponent's, of the same prompt.

    Args:
        policy: Name of the policy.
        against: Name of the opponent: another policy, or a column of the prompts' file.
        temperature: Of the policy's sampling; 0 is greedy.
        pair: Which of the pairs of runs, where a side has several seeds.
        place: Of the prompt among all.
        prompt_id: The prompt's own name.
        sample: Which of the completions of this prompt.
        prompt: Text.
        own: The policy's completion.
        theirs: The opponent's.
    """

    policy: str
    against: str
    temperature: float
    pair: int
    place: int
    prompt_id: str
    sample: int
    prompt: str
    own: str
    theirs: str


class Verdict(NamedTuple):
    """1 where the policy's completion is preferred, 0 where the opponent's is, 1/2 for a tie.

    Attributes:
        first: When the policy's was shown first.
        second: When it was shown second. ``None``: not asked, or the reply could not be read.
    """

    first: float | None
    second: float | None


TIE = Verdict(0.5, 0.5)


class Judge(Protocol):
    """Who decides matches.

    Attributes:
        name: In the tables.
        both_orders: Whether it is asked about every match in both orders. Then a match with one
            answer counts as undecided, because the preference for a place would not cancel.
    """

    @property
    def name(self) -> str: ...

    @property
    def both_orders(self) -> bool: ...

    def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
        """A verdict for each match; ``None`` for one that was not put to the judge."""


def value_of(verdict: Verdict | None, *, both_orders: bool) -> float | None:
    """The mean over the orders, in [0, 1]; ``None`` of an undecided match."""
    known = [] if verdict is None else [each for each in verdict if each is not None]
    if not known or (both_orders and len(known) < 2):
        return None
    return sum(known) / len(known)
