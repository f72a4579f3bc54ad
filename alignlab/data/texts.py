"""Prompts and completions as rewards get them: strings that carry the row's own value.

Rules and third-party classifiers read plain words, without special tokens or role names. A scorer
that was trained on rendered conversations must see the rendering of its own template. So each
string also carries the row's value, from which ``rendered`` makes the text that training on such a
row would read.
"""

from collections.abc import Sequence
from typing import Any

from alignlab.data.chat import Rendered, Replies, message
from alignlab.data.rows import Chat, Refused, Text, Turn
from alignlab.errors import DataError


class PromptText(str):
    """A prompt in words; ``source`` is the row's own: a string, or the turns of a conversation."""

    source: Text

    def __new__(cls, words: str, source: Text) -> "PromptText":
        """Make a string of ``text`` that keeps its source."""
        made = super().__new__(cls, words)
        made.source = source
        return made

    def __getnewargs__(self) -> tuple[str, Text]:  # type: ignore[override]
        return str(self), self.source

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The conversation as ``{role, content, ...}``; ``None`` of a plain prompt."""
        return None if isinstance(self.source, str) else [message(turn) for turn in self.source]


class CompletionText(str):
    """A completion in words; ``source`` as of a prompt; ``ends`` is False where it was cut off."""

    source: Text
    ends: bool

    def __new__(cls, words: str, source: Text, ends: bool = True) -> "CompletionText":
        """Make a string that keeps its source and whether it is complete."""
        made = super().__new__(cls, words)
        made.source, made.ends = source, ends
        return made

    def __getnewargs__(self) -> tuple[str, Text, bool]:  # type: ignore[override]
        return str(self), self.source, self.ends


def words(text: Text) -> str:
    """A string unchanged; of a conversation, the contents of its turns with empty lines between.

    Who said it is left out.
    """
    return text if isinstance(text, str) else "\n\n".join(turn.content for turn in text)


def prompt_text(source: Text) -> PromptText:
    """A row's prompt as rewards get it."""
    return PromptText(words(source), source)


def completion_text(source: Text, ends: bool = True) -> CompletionText:
    """A row's completion as rewards get it."""
    return CompletionText(words(source), source, ends)


def rendered(
    tokenizer: Any, prompts: Sequence[str], completions: Sequence[str], scorer: str
) -> list[Rendered]:
    """Each prompt + completion as the text that a scorer with this tokenizer is trained on.

    A conversation goes through the tokenizer's chat template; where it has none, the scorer was
    trained on plain text and gets the words. Plain strings are joined as they are.

    Raises:
        DataError: The template refuses a conversation; ``scorer`` names it.
    """
    pairs = zip(prompts, completions, strict=True)
    replies = None if tokenizer.chat_template is None else Replies(tokenizer)
    try:
        return [_rendered(replies, prompt, completion) for prompt, completion in pairs]
    except Refused as problem:
        raise DataError(
            f"{scorer}: a conversation cannot be scored: {problem}. Use a scorer whose chat "
            "template takes such conversations, or leave these prompts out."
        ) from problem


def _rendered(replies: Replies | None, prompt: str, completion: str) -> Rendered:
    source = prompt.source if isinstance(prompt, PromptText) else str(prompt)
    if isinstance(source, str):
        return Rendered(source + completion, len(source))
    ends = completion.ends if isinstance(completion, CompletionText) else True
    if replies is None:
        said = f"{prompt}\n\n{completion}"
        return Rendered(said, len(said) - len(completion), ends=ends)
    return replies(source, _reply(completion), ends)


def _reply(completion: str) -> Chat:
    """The turns of a reply."""
    own = completion.source if isinstance(completion, CompletionText) else str(completion)
    return (Turn("assistant", own),) if isinstance(own, str) else own


def as_completion(prompt: Text, text: str) -> Text:
    """``text`` as what follows ``prompt``: a string, or an assistant's turn."""
    return str(text) if isinstance(prompt, str) else (Turn("assistant", str(text)),)
