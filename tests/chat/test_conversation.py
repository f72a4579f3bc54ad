"""Conversations whose replies are given; the user's words come from a list."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from alignlab.chat.conversation import Conversation
from alignlab.chat.speaker import Speaker
from alignlab.data.modules import PreferenceData
from alignlab.data.rows import Text, Turn
from alignlab.data.texts import CompletionText
from tests.data.tokens import bytewise

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Scripted(Speaker):
    """Replies with its name and the number of messages that it was given."""

    def __init__(self, name: str, *, chats: bool = True) -> None:
        self.name, self._chats, self.heard = name, chats, list[Text]()

    @property
    def chats(self) -> bool:
        return self._chats

    def reply(self, prompt: Text, turn: int) -> Iterator[str]:
        self.heard.append(prompt)
        yield self.name
        yield f"{self.name} {len(prompt)}"


def talk(
    speakers: list[Scripted], save: Path, *said: str, terminal: bool = False
) -> tuple[int, str]:
    """Preferences kept, and what was shown."""
    words, shown = iter(said), io.StringIO()

    def ask(_: str) -> str:
        try:
            return next(words)
        except StopIteration:
            raise EOFError from None

    console = Console(file=shown, force_terminal=terminal, width=80)
    kept = Conversation(list(speakers), save, ask=ask, console=console, system="Be brief.").run()
    return kept, shown.getvalue()


def test_a_preference_is_a_row_and_its_reply_is_continued(tmp_path: Path) -> None:
    left, right = Scripted("left"), Scripted("right")
    file = tmp_path / "kept.jsonl"
    kept, _ = talk([left, right], file, "hello", "2", "and now?", "x", "1")
    assert kept == 2
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    system = {"role": "system", "content": "Be brief."}
    hello = {"role": "user", "content": "hello"}
    assert rows[0] == {
        "prompt": [system, hello],
        "chosen": [{"role": "assistant", "content": "right 2"}],
        "rejected": [{"role": "assistant", "content": "left 2"}],
    }
    said = {"role": "assistant", "content": "right 2"}
    assert rows[1]["prompt"] == [system, hello, said, {"role": "user", "content": "and now?"}]
    assert rows[1]["chosen"] == [{"role": "assistant", "content": "left 4"}]
    data = PreferenceData(str(file), batch_size=2)
    data.tokenizer = bytewise(TEMPLATE, bos=None, eos="<|im_end|>")
    data.setup("fit")
    assert [tree.id for tree in data.train_trees] == ["kept.jsonl:1", "kept.jsonl:2"]


def test_neither_keeps_nothing_and_the_first_reply_is_continued(tmp_path: Path) -> None:
    left, right = Scripted("left"), Scripted("right")
    kept, _ = talk([left, right], tmp_path / "kept.jsonl", "hello", "", "more", "")
    assert kept == 0
    assert not (tmp_path / "kept.jsonl").exists()
    assert left.heard[1] == (
        Turn("system", "Be brief."),
        Turn("user", "hello"),
        Turn("assistant", "left 2"),
        Turn("user", "more"),
    )


def test_equal_replies_are_not_asked_about(tmp_path: Path) -> None:
    one, other = Scripted("same"), Scripted("same")
    kept, _ = talk([one, other], tmp_path / "kept.jsonl", "hello", "/new", "again")
    assert kept == 0
    assert [len(heard) for heard in one.heard] == [2, 2]  # a new conversation: nothing before it


def test_without_a_template_each_message_is_continued(tmp_path: Path) -> None:
    left, right = Scripted("left", chats=False), Scripted("right", chats=False)
    file = tmp_path / "kept.jsonl"
    talk([left, right], file, "abc", "1", "/quit", "not read")
    assert left.heard == ["abc"]
    row = {"prompt": "abc", "chosen": "left 3", "rejected": "right 3"}
    assert [json.loads(line) for line in file.read_text().splitlines()] == [row]


@pytest.mark.parametrize("terminal", [False, True])
def test_replies_are_shown_once_or_while_they_grow(tmp_path: Path, terminal: bool) -> None:
    speakers = [Scripted("left"), Scripted("[b]right")]
    _, shown = talk(speakers, tmp_path / "kept.jsonl", "hello", "", terminal=terminal)
    assert "left 2" in shown
    assert "[b]right 2" in shown  # text of a model is never markup
    assert ("\x1b[" in shown) == terminal


def test_tools_stand_in_the_first_message_of_every_conversation(tmp_path: Path) -> None:
    """As rows hold them, so that a kept preference is trained on with its tools."""
    tools = [{"type": "function", "function": {"name": "weather"}}]
    file, words = (
        tmp_path / "kept.jsonl",
        iter(["hi", "2", "more", "", "/new", "again", "", "/quit"]),
    )
    left, right = Scripted("left"), Scripted("right")
    console = Console(file=io.StringIO())
    Conversation([left, right], file, ask=lambda _: next(words), console=console, tools=tools).run()
    assert len(left.heard) == 3
    for prompt in left.heard:
        assert [isinstance(turn, Turn) and turn.fields.get("tools") for turn in prompt] == [
            tools, *[None] * (len(prompt) - 1),
        ]  # fmt: skip
    data = PreferenceData(str(file), batch_size=1)
    shown = "{% if tools %}{{ tools | tojson }}{% endif %}"
    data.tokenizer = bytewise(shown + TEMPLATE, bos=None, eos="<|im_end|>")
    data.setup("fit")
    assert '"weather"' in data.tokenizer.decode(data.train_trees[0].prompt)


def test_a_reply_that_was_cut_off_is_kept_as_such(tmp_path: Path) -> None:
    """Else training on it would teach to stop in the middle of a sentence."""

    class Endless(Scripted):
        def reply(self, prompt: Text, turn: int) -> Iterator[str]:
            for end in (False, self.name == "whole"):
                yield CompletionText(f"{self.name} it", f"{self.name} it", end)

    file = tmp_path / "kept.jsonl"
    talk([Endless("cut"), Endless("whole")], file, "hello", "1", "again", "2")
    data = PreferenceData(str(file), batch_size=2)
    data.tokenizer = bytewise(TEMPLATE, bos=None, eos="<|im_end|>")
    data.setup("fit")
    stop = data.tokenizer.eos_token_id
    ended = [[ids[-1] == stop for ids in tree.completions] for tree in data.train_trees]
    assert ended == [[False, True], [True, False]]
