"""A person as a judge: one match after another in the terminal, blind to who wrote what."""

from collections.abc import Callable, Sequence

from alignlab.files import sha_of
from alignlab.winrate.matches import TIE, Match, Verdict
from alignlab.winrate.memo import Memo
from alignlab.winrate.questions import shown_prompt

ANSWERS = {"a": 1.0, "b": 0.0, "t": 0.5}


class Person:
    """Asks until every match is decided or ``q`` is given; answers are kept.

    The order of the matches, and which completion is A, are drawn by the content of the texts.
    Stopping early therefore leaves a random part of all cells. Each match is asked once, so a
    preference for the first text is averaged out and not cancelled.

    Args:
        ask: Shows a text and returns the answer.
    """

    name = "person"
    both_orders = False

    def __init__(self, ask: Callable[[str], str] = input) -> None:
        self._ask = ask

    def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
        """A verdict in one order; ``None`` where the person stopped before."""
        keys = [_key(match) for match in matches]
        shown = {key: match for key, match in zip(keys, matches, strict=True) if _differ(match)}
        left = sorted(key for key in shown if key not in memo)
        for number, key in enumerate(left, start=1):
            answer = self._answer(shown[key], key, f"{number} of {len(left)}")
            if answer is None:
                break
            memo.keep({key: answer})
        return [self._verdict(m, key, memo) for m, key in zip(matches, keys, strict=True)]

    def _answer(self, match: Match, key: str, where: str) -> float | None:
        a, b = _in_order(match, key)
        print(f"\n--- {where} ---\n{shown_prompt(match.prompt)}\n\nA: {a}\n\nB: {b}\n", flush=True)
        while True:
            try:
                said = self._ask("Which is better? a, b, t (tie) or q (stop): ").strip().lower()
            except EOFError:
                return None
            if said == "q":
                return None
            if said in ANSWERS:
                return ANSWERS[said]

    @staticmethod
    def _verdict(match: Match, key: str, memo: Memo) -> Verdict | None:
        if not _differ(match):
            return TIE
        if key not in memo:
            return None
        if _in_order(match, key)[0] == match.own.strip():
            return Verdict(memo[key], None)
        return Verdict(None, 1 - memo[key])


def _differ(match: Match) -> bool:
    return match.own.strip() != match.theirs.strip()


def _key(match: Match) -> str:
    """The same whichever side is whose, so that a match is not asked again with sides swapped."""
    texts = sorted([match.own.strip(), match.theirs.strip()])
    return sha_of({"asked a person": shown_prompt(match.prompt), "texts": texts})


def _in_order(match: Match, key: str) -> list[str]:
    """The two completions, A first."""
    return sorted([match.own.strip(), match.theirs.strip()], reverse=int(key, 16) % 2 == 1)
