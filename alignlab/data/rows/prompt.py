"""Prompts: something to complete."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Completable
from alignlab.data.rows.pair import PreferencePair
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Turn


@dataclass(frozen=True, slots=True)
class Prompt(Completable):
    """Something to complete."""

    COLUMNS = (("prompt",), ("messages",), ("chosen", "rejected"))

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """The prompt itself; else that of a conversation or of a pair.

        Beside whole conversations a plain prompt is a copy of their question.
        """
        if "chosen" in read.columns:
            return cls(read.id, PreferencePair.parse(read).prompt)
        if "messages" in read.columns:
            turns = read.turns("messages")
            while turns and turns[-1].role == "assistant":
                turns = turns[:-1]
            if not turns:
                raise Refused("empty prompt in 'messages'")
            return cls(read.id, turns)
        if not read.chat and {"chosen", "rejected"} <= read.chats:
            return cls(read.id, PreferencePair.parse(read.as_chat()).prompt)
        if not read.chat and "messages" in read.chats:
            copied, turns = Turn("user", read.plain("prompt")), read.turns("messages")
            if copied not in turns:
                raise Refused("'prompt' is not a turn of 'messages'")
            return cls(read.id, turns[: turns.index(copied) + 1])
        return cls(read.id, read.text("prompt"))
