"""What the toy world's grammar says next: exact probabilities of the next word after any prefix.

``worlds.toy.write_completion`` draws reviews; this module follows all ways in which it could have
drawn a prefix. So a policy can be compared with the grammar word by word: how far its distribution
is from the grammar's, and how much of it lies on words that the grammar cannot say.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from alignlab.worlds.toy import (
    AGREEING,
    ASPECTS,
    FIRST,
    FIRST_HONESTLY,
    GO_ON,
    LAST_START,
    LEADS,
    NEW_SUBJECT,
    NEXT,
    PHRASES,
    TENSE,
    praises,
    verb_of,
)

END = ""  # the end of the text, which follows the full stop


class State(NamedTuple):
    """Where the grammar is: what it does next depends on this alone and on the words so far.

    Attributes:
        step: ``verb``, ``opinion``, ``said``, ``subject``, ``aspect``, ``tense`` or ``stop``.
        level: Of the opinion in progress, or of the last one.
        aspect: What the review speaks of.
        verb: Its tense.
        words: Of the opinion in progress.
    """

    step: str
    level: str
    aspect: str
    verb: str
    words: tuple[str, ...] = ()


Choices = Iterator[tuple[str, float, State]]  # a word, its probability, and the state behind it
Belief = Mapping[State, float]


def next_words(prompt: str, words: tuple[str, ...]) -> dict[str, float]:
    """The grammar's distribution of the word after ``prompt`` and ``words``.

    Empty where the grammar cannot write ``words`` after the prompt, and behind the end.

    Args:
        prompt: One of ``all_prompts()``.
        words: The completion so far.
    """
    found: dict[str, float] = {}
    for state, weight in _belief(prompt, words).items():
        for word, chance, _ in _choices(state, len(words)):
            found[word] = found.get(word, 0.0) + weight * chance
    return found


@cache
def bigrams() -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words in reviews, ``(".", END)`` included.

    The first word of a completion is left out: what it follows is the prompt.
    """
    found: set[tuple[str, str]] = set()
    seen: set[tuple[str, State]] = set()
    waiting = [
        ("", state)
        for lead in LEADS
        for aspect in ASPECTS
        for state in _belief(f"{lead} the {aspect}".strip(), ())
    ]
    while waiting:
        before, state = waiting.pop()
        # A review may stop after each opinion and go on after each that began early enough.
        for word, _, behind in _choices(state, 0):
            found.update([(before, word)] if before else [])
            if word != END and (word, behind) not in seen:
                seen.add((word, behind))
                waiting.append((word, behind))
    return frozenset(found)


@cache
def _belief(prompt: str, words: tuple[str, ...]) -> Belief:
    """Probabilities of the states that ``words`` lead to; empty where none does."""
    if not words:
        return _beginning(prompt)
    found: dict[State, float] = {}
    for state, weight in _belief(prompt, words[:-1]).items():
        for word, chance, behind in _choices(state, len(words) - 1):
            if word == words[-1] and word != END:
                found[behind] = found.get(behind, 0.0) + weight * chance
    total = sum(found.values())
    return {state: weight / total for state, weight in found.items()}


def _beginning(prompt: str) -> Belief:
    given = prompt.split()
    aspect, asked = given[given.index("the") + 1], verb_of(given)
    levels = FIRST_HONESTLY if "honestly" in given else FIRST
    step = "opinion" if given[-1] == asked else "verb"
    verbs = [asked] if asked else list(TENSE.values())
    return {
        State(step, level, aspect, verb): share / len(verbs)
        for level, share in levels.items()
        for verb in verbs
    }


def _choices(state: State, count: int) -> Choices:
    """What may come next, ``count`` words into the completion."""
    step, level, aspect, verb, _ = state
    if step == "verb":
        yield verb, 1.0, State("opinion", level, aspect, verb)
    elif step == "opinion":
        yield from _opinions(state, 1.0)
    elif step == "said":
        yield from _after_an_opinion(state, count)
    elif step == "subject":
        yield "the", NEW_SUBJECT, State("aspect", level, aspect, verb)
        yield from _opinions(State("opinion", level, aspect, verb), 1 - NEW_SUBJECT)
    elif step == "aspect":
        others = [other for other in ASPECTS if other != aspect]
        for other in others:
            yield other, 1 / len(others), State("tense", level, other, verb)
    elif step == "tense":
        yield verb, 1.0, State("opinion", level, aspect, verb)
    else:
        yield END, 1.0, state


def _opinions(state: State, share: float) -> Choices:
    """The next word of an opinion whose first words are those of ``state``."""
    phrases, done = _phrases(state.level), len(state.words)
    ways = {words: p for words, p in phrases.items() if words[:done] == state.words}
    total = sum(ways.values())
    heads: dict[str, float] = {}
    for words, p in ways.items():
        heads[words[done]] = heads.get(words[done], 0.0) + p
    for word, p in heads.items():
        words = (*state.words, word)
        whole = words in phrases  # no opinion is the beginning of another
        behind = state._replace(step="said", words=()) if whole else state._replace(words=words)
        yield word, share * p / total, behind


def _after_an_opinion(state: State, count: int) -> Choices:
    go_on = GO_ON[state.level] if count <= LAST_START else 0.0
    yield ".", 1 - go_on, state._replace(step="stop")
    if not go_on:
        return
    for level, share in NEXT[state.level].items():
        behind = state._replace(step="subject", level=level)
        agree = praises(state.level) == praises(level)
        for word, p in AGREEING.items() if agree else [("but", 1.0)]:
            yield word, go_on * share * p, behind


@cache
def _phrases(level: str) -> dict[tuple[str, ...], float]:
    return {tuple(phrase.split()): p for phrase, p in PHRASES[level].items()}
