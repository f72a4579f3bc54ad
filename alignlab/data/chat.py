"""Rendering: rows become one text each, with the characters marked where prompt and turns end.

A plain row is its prompt and completion joined as they are. A conversation goes through the
tokenizer's chat template; which characters the assistant wrote is found by rendering the
conversation's beginnings, so it needs no markers in the template.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignlab.data.rows import Chat, Refused, Text
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Chat, bool], str]  # (turns, whether to open the assistant's next turn) -> text


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt + completion as text.

    Args:
        text: The whole, without the end-of-text token.
        boundary: Characters of the prompt.
        spans: First and one-past-last character of every stretch that is trained on, the first of
            them at ``boundary``; the whole completion when ``None``.
        ends: Whether an end-of-text token follows.
    """

    text: str
    boundary: int
    spans: tuple[tuple[int, int], ...] | None = None
    ends: bool = True


def render(
    tokenizer: "PreTrainedTokenizerBase", prompt: Text, completion: Text, ends: bool
) -> Rendered:
    """The text of one prompt + completion.

    Raises:
        ConfigError: A conversation, and the tokenizer has no chat template.
        Refused: The template refuses the conversation, or rewrites its earlier turns.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        return Rendered(prompt + completion, len(prompt), ends=ends)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise Refused("prompt and completion are not both plain or both conversations")
    return _rendered_chat(tokenizer, prompt, completion, ends)


def render_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Text) -> str:
    """The text a completion is asked for after: a conversation up to the assistant's next turn."""
    return prompt if isinstance(prompt, str) else _renderer(tokenizer)(prompt, True)


def _rendered_chat(
    tokenizer: "PreTrainedTokenizerBase", prompt: Chat, completion: Chat, ends: bool
) -> Rendered:
    renders = _renderer(tokenizer)
    turns = prompt + completion
    whole = renders(turns, False)
    spans: list[tuple[int, int]] = []
    for k in range(len(prompt), len(turns)):
        if turns[k].role != "assistant":
            continue
        start, end = renders(turns[:k], True), renders(turns[: k + 1], False)
        if not whole.startswith(start) or not whole.startswith(end):
            raise Refused("chat template changes earlier turns when later ones follow")
        spans.append((len(start), len(end)))
    cut = _end_of_last_turn(whole, spans[-1][0], turns[-1].content, tokenizer.eos_token, ends)
    spans[-1] = (spans[-1][0], cut)
    return Rendered(whole[:cut], spans[0][0], tuple(spans), ends)


def _end_of_last_turn(whole: str, start: int, content: str, eos: str | None, ends: bool) -> int:
    """Where the text stops: before the end-of-text token, or after the words of a cut-off turn.

    Templates close a turn with the end-of-text token and often a line break. The token is put back
    as an id, and what follows it is never generated, so it is not trained on either.
    """
    if not ends:
        at = whole.rfind(content.strip(), start)
        if at < 0:
            raise Refused("chat template changes the text of a turn")
        return at + len(content.strip())
    closing = whole.rfind(eos, start) if eos else -1
    return closing if closing >= 0 else len(whole)


def _renderer(tokenizer: "PreTrainedTokenizerBase") -> Render:
    if tokenizer.chat_template is None:
        raise ConfigError(
            "conversational rows need a chat template, and the tokenizer "
            f"{tokenizer.name_or_path!r} has none. Use a chat model's tokenizer, set its "
            "chat_template, or pass rows of plain text."
        )

    def renders(turns: Chat, opens: bool) -> str:
        if not turns and not opens:
            return ""
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=opens
            )
        except Exception as problem:  # templates raise what they like, jinja's errors or their own
            raise Refused("chat template refuses the conversation", f": {problem}") from problem

    return renders
