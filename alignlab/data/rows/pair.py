"""Preference pairs: two completions of one prompt."""

from dataclasses import dataclass
from typing import Self

from alignlab.data.rows.base import Branch, Completable
from alignlab.data.rows.guesses import mapping
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Text, Turn, check_number

ASSISTANT = "\n\nAssistant:"  # opens a reply in dialogues written as in Anthropic's HH


@dataclass(frozen=True, slots=True)
class PreferencePair(Completable):
    """Two completions of one prompt, the preferred one first; ``margin`` says by how much."""

    COLUMNS = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    chosen: Text
    rejected: Text
    chosen_ends: bool = True
    rejected_ends: bool = True
    margin: float | None = None

    @classmethod
    def parse(cls, read: Reader) -> Self:
        """A pair with a prompt, or two whole dialogues that begin alike."""
        copied = read.copied_prompt()
        if "prompt" in read.columns and copied is None:
            prompt, chosen, rejected = read.prompt_and("chosen", "rejected")
        else:
            prompt, chosen, rejected = _shared_beginning(read)
        ends = read.flag("chosen_ends"), read.flag("rejected_ends")
        pair = cls(read.id, prompt, chosen, rejected, *ends, read.number("margin"))
        if copied is not None and Turn("user", copied) not in _questions(prompt, chosen, rejected):
            raise Refused(
                "prompt is not the last question that chosen and rejected share: "
                "correct it or remove the column"
            )
        return pair

    def check(self) -> None:
        """Refuse equal completions, too."""
        Completable.check(self)
        if self.chosen == self.rejected and self.chosen_ends == self.rejected_ends:
            raise Refused("chosen and rejected are identical")
        check_number("margin", self.margin)

    def branches(self) -> list[Branch]:
        """The chosen completion, the rejected one."""
        return [
            Branch("chosen", self.chosen, self.chosen_ends),
            Branch("rejected", self.rejected, self.rejected_ends),
        ]

    @property
    def labels(self) -> tuple[float, ...] | None:
        """The margin and 0."""
        return None if self.margin is None else (float(self.margin), 0.0)


def _questions(prompt: Text, chosen: Text, rejected: Text) -> list[str | Turn]:
    """The turns of which a plain prompt may be a copy.

    The last shared one, or the first question of a conversation whose last turns alone differ, as
    in UltraChat.
    """
    asked = [turn for turn in prompt if isinstance(turn, Turn) and turn.role == "user"]
    return [prompt[-1], *(asked[:1] if len(chosen) == len(rejected) == 1 else [])]


def _shared_beginning(read: Reader) -> tuple[Text, Text, Text]:
    """Prompt and replies of a pair that is written as two whole dialogues."""
    chosen, rejected = read.text("chosen"), read.text("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        cuts = [text.rfind(ASSISTANT) + len(ASSISTANT) for text in (chosen, rejected)]
        if min(cuts) < len(ASSISTANT):
            named = mapping(("prompt",), read.fields)
            raise Refused(
                "no 'prompt' column and no '\\n\\nAssistant:' turn to find it by",
                f": if another column holds the prompts, name it: {named}",
            )
        shared = cuts[0] if chosen[: cuts[0]] == rejected[: cuts[1]] else 0
    else:
        most, shared = min(len(chosen), len(rejected)) - 1, 0
        while shared < most and chosen[shared] == rejected[shared]:
            shared += 1
    if not shared:
        # Beside a plain prompt the conversations hold it, too; these begin with the reply.
        first, why = chosen[0], ""
        if "prompt" in read.columns and isinstance(first, Turn) and first.role == "assistant":
            why = ": write 'prompt' as a list of messages, as the replies are"
        raise Refused("prompt of the pair is not shared", why)
    replies = read.reply("chosen", chosen[shared:]), read.reply("rejected", rejected[shared:])
    return chosen[:shared], *replies
