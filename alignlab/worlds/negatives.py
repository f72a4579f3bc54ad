"""Summaries that are worse than the true one by construction: rejected completions for free.

They replace people's choices where there are none. Each kind tests one property: ``other`` that a
summary fits its post, ``words`` that its words are in order, ``generic`` that it is specific.
"""

from collections.abc import Sequence
from itertools import product
from typing import Literal

from alignlab.data.rows import Refused, unit_hash

Kind = Literal["other", "words", "generic"]
KINDS: tuple[Kind, ...] = ("other", "words", "generic")
Side = Literal["train", "held_out"]

_EVENTS = (
    "I have a problem",
    "Something happened to me",
    "I did something",
    "A thing happened the other day",
    "Somebody said something to me",
    "I found something",
    "There is this situation",
    "My friend did something",
    "I have been thinking about something",
    "I made a decision",
    "It is a long story",
    "I have a question",
)
_TURNS = (
    "and I don't know what to do",
    "and it was not what I expected",
    "and now I feel bad about it",
    "and it went well in the end",
    "and I want to talk about it",
    "and it is complicated",
    "and I learned something from it",
    "and nothing came of it",
    "and people were surprised",
    "and I would like to hear from you",
)
_ENDS = (
    "What do you think?",
    "Any help is welcome.",
    "Please read the post.",
    "Has this happened to you?",
    "Thanks for reading.",
    "What should I do?",
)
_PURPOSE = {"other": 0, "words": 1, "generic": 2, "side": 3, "kind": 4}  # of a text's hash


def kind_of(id: str, kinds: Sequence[Kind], seed: int) -> Kind:
    """One of ``kinds``, even among them: a function of (seed, id)."""
    return kinds[int(unit_hash(id, _stream(seed, "kind")) * len(kinds))]


def other_summary(id: str, summary: str, pool: Sequence[str], seed: int) -> str:
    """Another post's summary.

    Args:
        id: The post's name.
        summary: Its own summary.
        pool: Summaries to choose from; its own may be among them.
        seed: Decides which.

    Raises:
        Refused: There is no other.
    """
    start = int(unit_hash(id, _stream(seed, "other")) * len(pool))
    for k in range(len(pool)):
        found = pool[(start + k) % len(pool)]
        if found != summary:
            return found
    raise Refused("no other summary")


def shuffled_words(id: str, summary: str, seed: int) -> str:
    """The same words in another order.

    Raises:
        Refused: Fewer than four different words.
    """
    words = summary.split()
    if len(set(words)) < 4:
        raise Refused("too few words to shuffle")
    stream = _stream(seed, "words")
    for attempt in range(100):
        keys = [unit_hash(f"{id} {attempt} {k}", stream) for k in range(len(words))]
        mixed = [words[k] for k in sorted(range(len(words)), key=keys.__getitem__)]
        if mixed != words:
            return " ".join(mixed)
    raise AssertionError("a hundred shuffles of four different words in the same order")


def generic_summary(id: str, summary: str, side: Side, seed: int) -> str:
    """Sentences that fit any post, with about as many words as ``summary`` has.

    Args:
        id: The post's name.
        summary: Its own summary.
        side: Which half of the sentences; the training half and the held-out half share none.
        seed: Decides which sentences, not which half they are in.
    """
    sentences = _SENTENCES[side]
    wanted, said = len(summary.split()), ""
    for k in range(len(sentences)):
        place = int(unit_hash(f"{id} {k}", _stream(seed, "generic")) * len(sentences))
        longer = f"{said} {sentences[place]}".strip()
        if said and len(longer.split()) - wanted > wanted - len(said.split()):
            break
        said = longer
    return said


def _stream(seed: int, purpose: str) -> int:
    return len(_PURPOSE) * seed + _PURPOSE[purpose]


def _sentences() -> dict[Side, list[str]]:
    every = [f"{event} {turn}." for event, turn in product(_EVENTS, _TURNS)]
    every += [f"{event}. {end}" for event, end in product(_EVENTS, _ENDS)]
    sides: dict[Side, list[str]] = {"train": [], "held_out": []}
    for sentence in every:
        held_out = unit_hash(sentence, _stream(0, "side")) < 0.5
        sides["held_out" if held_out else "train"].append(sentence)
    return sides


_SENTENCES = _sentences()
