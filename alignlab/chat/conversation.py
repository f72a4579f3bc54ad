"""The turns of ``alignlab chat``: the user speaks, policies reply, and a preference is kept."""

import json
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text as Words

from alignlab.chat.speaker import Speaker
from alignlab.data.rows import Text, Turn
from alignlab.data.sources import as_json
from alignlab.data.texts import CompletionText

HELP = "Type a message. /new starts a new conversation, /quit (or Ctrl-D) ends."
CHOICES = {"1": 0, "2": 1}


class Conversation:
    """What was said so far, and where preferences are kept.

    Args:
        speakers: One policy, or two that reply side by side.
        save: The file that preferences are added to, as JSONL of ``prompt``, ``chosen`` and
            ``rejected`` that ``PreferenceData`` reads. A reply that was cut off is marked as such.
        ask: Shows a text and returns what the user types.
        console: Where replies are shown: in place while they grow if it is a terminal, else once.
        system: The system's message of each conversation.
        tools: Schemas of the tools that the policies may call, for their chat templates. A call is
            shown as it was written, and nothing is executed.
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        save: Path,
        *,
        ask: Callable[[str], str],
        console: Console | None = None,
        system: str | None = None,
        tools: Sequence[Any] = (),
    ) -> None:
        self._speakers, self._save, self._ask = speakers, save, ask
        self._console = console or Console()
        self._system = () if system is None else (Turn("system", system),)
        self._tools = list(tools)
        self._turns: tuple[Turn, ...] = self._system
        self._spoken = 0

    def run(self) -> int:
        """Talk until the user ends it; how many preferences were kept."""
        kept = 0
        self._console.print(HELP, markup=False)
        while (said := self._heard("you: ")) not in (None, "/quit"):
            if said == "/new":
                self._turns = self._system
            elif said:
                kept += self._exchange(said)
        return kept

    def _heard(self, question: str) -> str | None:
        try:
            return self._ask(question).strip()
        except EOFError:
            return None

    def _exchange(self, said: str) -> bool:
        """One message and its replies; whether a preference was kept."""
        chats = self._speakers[0].chats
        prompt: Text = said
        if chats:
            first, *more = *self._turns, Turn("user", said)
            prompt = (first.with_extra("tools", self._tools) if self._tools else first, *more)
        replies = self._replies(prompt)
        chosen = self._choice() if len(set(replies)) > 1 else None
        if chats:
            self._turns = (*prompt, Turn("assistant", replies[chosen or 0]))
        if chosen is None:
            return False
        self._keep(prompt, replies[chosen], replies[1 - chosen])
        return True

    def _replies(self, prompt: Text) -> list[str]:
        """The replies of all policies, shown while they are sampled."""
        self._spoken += 1
        growing = [speaker.reply(prompt, self._spoken) for speaker in self._speakers]
        replies = [""] * len(growing)
        terminal = self._console.is_terminal
        with Live(console=self._console, auto_refresh=False, transient=not terminal) as live:
            for longer in zip_longest(*growing):
                replies = [new or old for new, old in zip(longer, replies, strict=True)]
                if terminal:
                    live.update(self._panels(replies), refresh=True)
        if not terminal:
            for speaker, reply in zip(self._speakers, replies, strict=True):
                self._console.print(f"{speaker.name}: {reply.strip()}", markup=False)
        return replies

    def _panels(self, replies: Sequence[str]) -> Columns:
        width = self._console.width // len(replies) - 1
        return Columns(
            [
                Panel(Words(reply.strip()), title=Words(speaker.name), width=width)
                for speaker, reply in zip(self._speakers, replies, strict=True)
            ]
        )

    def _choice(self) -> int | None:
        """The preferred reply, which the conversation continues with; ``None``: neither."""
        answer = self._heard("better: 1 (left), 2 (right), or Enter for neither: ")
        while answer not in (None, "", *CHOICES):
            answer = self._heard("1, 2 or Enter: ")
        return CHOICES.get(answer or "")

    def _keep(self, prompt: Text, chosen: str, rejected: str) -> None:
        def own(reply: str) -> Text:
            return reply if isinstance(prompt, str) else (Turn("assistant", reply),)

        row = {"prompt": prompt, "chosen": own(chosen), "rejected": own(rejected)}
        record: dict[str, Any] = {key: as_json(text) for key, text in row.items()}
        for side, reply in (("chosen", chosen), ("rejected", rejected)):
            if isinstance(reply, CompletionText) and not reply.ends:  # must not be taught to stop
                record[f"{side}_ends"] = False
        line = json.dumps(record, ensure_ascii=False)
        with self._save.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
