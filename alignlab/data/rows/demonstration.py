"""Demonstrations: a prompt and a completion to imitate."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.pair import PreferencePair
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Text


@dataclass(frozen=True, slots=True)
class Demonstration(Completable):
    """A prompt with a completion to imitate.

    In a conversation ``completion`` starts with the assistant's turn and may go on over several
    turns; the assistant's are trained on.
    """

    COLUMNS = (
        ("prompt", "completion"),
        ("messages",),
        ("prompt", "chosen", "rejected"),
        ("chosen", "rejected"),
    )
    completion: Text
    ends: bool = True

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The two columns, a conversation cut before its first reply, or a pair's chosen side."""
        if "chosen" in read.columns:
            pair = PreferencePair.parse(read)
            pair.check()  # of exactly those rows that can be used as pairs
            return cls(pair.id, pair.prompt, pair.chosen, ends=pair.chosen_ends)
        if "messages" in read.columns:
            turns = read.turns("messages")
            replies = [k for k, turn in enumerate(turns) if turn.role == "assistant"]
            if not replies:
                roles = ", ".join(dict.fromkeys(turn.role for turn in turns))
                raise Refused("no assistant turn in 'messages'", f": its roles are {roles}")
            if replies[-1] != len(turns) - 1:
                last = f", but with {turns[-1].role!r}"
                raise Refused("'messages' does not end with an assistant turn", last)
            first = replies[0]
            return cls(read.id, turns[:first], turns[first:], ends=read.flag("ends"))
        prompt, completion = read.prompt_and("completion")
        return cls(read.id, prompt, completion, ends=read.flag("ends"))

    def branches(self) -> list[Branch]:
        """The completion."""
        return [Branch("completion", self.completion, self.ends)]
