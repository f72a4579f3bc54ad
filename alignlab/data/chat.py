"""Render rows: each becomes one text, with marks at the characters where prompt and turns end.

A plain row is its prompt and completion joined as they are. A conversation goes through the
tokenizer's chat template; which characters the assistant wrote is found by rendering the
conversation's beginnings, so it needs no markers in the template. Where a template has the markers
``{% generation %}``, what they leave out of a turn is not trained on.

The loss on a turn includes the token that closes it; otherwise a policy never learns to stop.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from alignlab.data.rows import Chat, Refused, Text, Turn
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = tuple[tuple[int, int], ...]
_Inputs = tuple[list[dict[str, Any]], list[Any] | None]  # messages and tools
_CALLS = ("tool_calls", "function_call", "tools")  # what a row must not lose
_RENDERING = "use one that does, such as that of docs/sft.md, Tools"
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # nor a reply that is trained on
TODAY = datetime(2024, 7, 26)  # of templates that write the date; Llama 3's have it without a clock
# transformers gives templates the clock as a function and takes no other from callers. A macro of
# its name is found before it; ``+%}`` keeps a line break with which a template begins.
_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(
        f"|replace('%{way}', '{TODAY.strftime(f'%{way}')}')"
        for way in [*"aAbBdHIjmMpSuUVwWyY", "-d", "-m"]
    )
    + " }}{% endmacro +%}"
)
_PROBE = "\u2042"  # a word that no template knows
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One prompt + completion as text."""

    text: str  # the whole, without the end-of-text token
    boundary: int  # characters of the prompt
    # First and one-past-last character of every stretch that is trained on, none of them before
    # the boundary; the whole completion when None.
    spans: Spans | None = None
    ends: bool = True  # whether an end-of-text token follows


def render(
    tokenizer: "PreTrainedTokenizerBase", prompt: Text, completion: Text, ends: bool
) -> Rendered:
    """Render one prompt + completion as text.

    Raises:
        ConfigError: The row is a conversation and the tokenizer has no chat template.
        Refused: The template refuses the conversation, rewrites its earlier turns or marks nothing
            of its last one, or a turn holds a special token.
    """
    if isinstance(prompt, str) and isinstance(completion, str):
        return Rendered(prompt + completion, len(prompt), ends=ends)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise Refused("prompt and completion are not both plain or both conversations")
    template = _Template(tokenizer)
    template.check(prompt + completion)
    return _rendered_chat(template, prompt, completion, ends)


class Replies:
    """Renders what a policy wrote for a scorer with this tokenizer; no text is refused.

    Raises:
        ConfigError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._template = _Template(tokenizer)

    def __call__(self, prompt: Chat, completion: Chat, ends: bool) -> Rendered:
        """Render as ``render`` does, except that every turn of the reply is trained on.

        Raises:
            Refused: The template refuses the conversation, or rewrites its earlier turns.
        """
        return _rendered_chat(self._template, prompt, completion, ends, marked=False)


def reply_frame(tokenizer: "PreTrainedTokenizerBase", prompt: Chat) -> tuple[str, str]:
    """What the template itself puts before and after the words of the assistant's next turn.

    Without special tokens, as decoded completions are. Most templates add nothing; Llama 2's adds a
    space, Qwen 3's an empty thought.

    Raises:
        Refused: The template refuses the conversation.
    """
    template = _Template(tokenizer)
    start = template(prompt, opens=True)
    whole = template((*prompt, Turn("assistant", _PROBE)), opens=False)
    if not whole.startswith(start) or _PROBE not in whole[len(start) :]:
        return "", ""
    before, _, after = whole[len(start) :].partition(_PROBE)
    closing = template.special.search(after)
    return template.special.sub("", before), after[: closing.start()] if closing else ""


def render_prompt(tokenizer: "PreTrainedTokenizerBase", prompt: Text) -> Rendered:
    """Render the prompt alone: a conversation up to the start of the assistant's next turn."""
    if isinstance(prompt, str):
        return Rendered(prompt, len(prompt), ends=False)
    template = _Template(tokenizer)
    template.check(prompt)
    text = template(prompt, opens=True)
    return Rendered(text, len(text), (), ends=False)


def unread_fields(
    tokenizer: "PreTrainedTokenizerBase", prompt: Chat, completion: Chat = ()
) -> list[str]:
    """List the fields of messages that the tokenizer's template leaves out.

    Raises:
        Refused: One of them is a tool call, the list of tools, or the reasoning of a trained reply:
            without it the row would mean something else.
    """
    turns = prompt + completion
    if not any(turn.extra for turn in turns):
        return []
    template, unread = _Template(tokenizer), []
    whole = template(turns, opens=not completion)
    for name in dict.fromkeys(name for turn in turns for name in turn.fields if name != "content"):
        first = len(prompt) if name in _THOUGHTS and completion else 0
        fewer = tuple(t.without(name) if k >= first else t for k, t in enumerate(turns))
        if fewer == turns or not template.renders_alike(fewer, whole, opens=not completion):
            continue
        if name in _CALLS or (name in _THOUGHTS and completion):
            raise Refused(f"chat template does not render {name!r}: {_RENDERING}")
        unread.append(name)
    return unread


def writes_the_date(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the chat template asks for the date. It then gets ``TODAY``: rows do not change."""
    return "strftime_now" in str(tokenizer.chat_template)


class _Template:
    """A tokenizer's chat template, with the marks it sets and the tokens that close a turn."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if tokenizer.chat_template is None:
            raise ConfigError(
                "conversational rows need a chat template, and the tokenizer "
                f"{tokenizer.name_or_path!r} has none. Use a chat model's tokenizer, give "
                "chat_format (model.init_args.policy.chat_format: llama3 or a template's file; "
                "--chat-format of check-data), or pass rows of plain text."
            )
        self.tokenizer = tokenizer
        special = frozenset(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special)
        self.special = _any_of(special)

    def source(self, tools: list[Any] | None = None) -> str:
        """The template for a conversation with these tools; it takes ``TODAY`` for the date."""
        source: str = self.tokenizer.get_chat_template(tools=tools)
        return _CLOCK + source if "strftime_now" in source else source

    def check(self, turns: Chat) -> None:
        """Refuse turns whose author wrote a token that only the template may set.

        Raises:
            Refused: It would end the turn, or the text, in its middle.
        """
        for turn in turns:
            if found := self.special.search(turn.content) or self.special.search(turn.extra):
                raise Refused("special token inside a turn", f": {found[0]!r}")

    def __call__(self, turns: Chat, *, opens: bool) -> str:
        """The turns as text; ``opens`` adds the beginning of the assistant's next one."""
        if not turns and not opens:
            return ""
        return self._render(turns, opens=opens)[0]

    def _render(self, turns: Chat, *, opens: bool) -> tuple[str, _Inputs]:
        """The turns as text, and what the template was given.

        Most templates want a tool call's arguments as an object; some join them to a text or print
        them, and get them as JSON.
        """
        calls = any("tool_calls" in turn.extra for turn in turns)
        for as_text in (False, True) if calls else (False,):
            messages, tools = _inputs(turns, as_text=as_text)
            try:
                text: str = self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=self.source(tools),
                    tokenize=False,
                    add_generation_prompt=opens,
                )
            except (
                Exception
            ) as error:  # templates raise what they like, jinja's errors or their own
                problem = error
                continue
            if any(str(a) in text for a in _arguments(messages) if str(a) != json.dumps(a)):
                problem = ValueError("it prints a call's arguments as Python")
                continue
            return text, (messages, tools)
        raise Refused("chat template refuses the conversation", f": {problem}") from problem

    def renders_alike(self, turns: Chat, whole: str, *, opens: bool) -> bool:
        """Whether the template renders the turns to the text ``whole``."""
        try:
            return self(turns, opens=opens) == whole
        except Refused:
            return False

    def marks(self, turns: Chat) -> Spans | None:
        """The characters inside ``{% generation %}``; ``None`` where the template has none."""
        source = self.source()
        if not _MARKER.search(source):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        _, (messages, tools) = self._render(turns, opens=False)
        _, (spans,) = render_jinja_template(
            [messages],
            tools=tools,
            chat_template=source,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return tuple(spans)

    def closed(self, text: str, start: int, end: int) -> int:
        """One past the special token that closes the turn ``text[start:end]``, else ``end``.

        A line break that templates often put behind it is never generated, so not trained on.
        """
        found = [match.end() for match in self.special.finditer(text, start, end)]
        return found[-1] if found else end


@lru_cache(maxsize=8)  # one is made for every row, of hundreds of tokens
def _any_of(texts: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def message(turn: Turn) -> dict[str, Any]:
    """A turn as a message: the dict that templates and files hold."""
    return {"role": turn.role, "content": turn.content, **turn.fields}


def _inputs(turns: Chat, *, as_text: bool) -> _Inputs:
    """The turns as messages for the template, and the tools that may be called.

    Nulls are left out, as ``apply_chat_template`` does.
    """
    given = [message(turn) for turn in turns]
    messages = [{k: v for k, v in one.items() if v is not None} for one in given]
    for call in _calls(messages):
        if "arguments" in call:
            call["arguments"] = _as_text_or_object(call["arguments"], as_text)
    return messages, messages[0].pop("tools", None) if messages else None


def _calls(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The functions that messages call."""
    for one in messages:
        calls = one.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function", call) if isinstance(call, dict) else None
            if isinstance(function, dict):
                yield function


def _arguments(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The arguments that are non-empty objects."""
    given = [call.get("arguments") for call in _calls(messages)]
    return [arguments for arguments in given if isinstance(arguments, dict) and arguments]


def _as_text_or_object(given: Any, as_text: bool) -> Any:
    """Arguments as an object, or as JSON text, which is OpenAI's format."""
    if as_text:
        return json.dumps(given, ensure_ascii=False) if isinstance(given, dict) else given
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return given
    return found if isinstance(found, dict) else given


def _rendered_chat(
    template: _Template, prompt: Chat, completion: Chat, ends: bool, *, marked: bool = True
) -> Rendered:
    """Render a conversation once, and find in it what the assistant wrote.

    A turn of the assistant lies between two renderings of beginnings of the conversation: of the
    turns before it, opened for a reply, and of those up to it.

    Args:
        template: Of the tokenizer.
        prompt: Turns before the completion.
        completion: Turns with the ones that are trained on.
        ends: Whether the last turn ended, and is closed by a token that is trained on.
        marked: Whether the template's own marks narrow down what is trained on.

    Raises:
        Refused: The template renders earlier turns differently once later ones follow.
    """
    turns = prompt + completion
    whole = template(turns, opens=False)
    written: list[tuple[int, int]] = []  # what a policy would have generated, turn by turn
    for k in range(len(prompt), len(turns)):
        if turns[k].role == "assistant":
            start = template(turns[:k], opens=True)
            end = whole if k + 1 == len(turns) else template(turns[: k + 1], opens=False)
            if not whole.startswith(start) or not whole.startswith(end):
                raise Refused("chat template changes earlier turns when later ones follow")
            written.append((len(start), template.closed(whole, len(start), len(end))))
    boundary, (last, close) = written[0][0], written[-1]
    eos = template.tokenizer.eos_token
    if not ends:
        close = _end_of_words(whole, last, turns[-1].content)
    elif eos and whole.endswith(eos, last, close):
        close -= len(eos)  # added again as an id; its text might be tokenised otherwise
    written[-1] = (last, close)
    spans = _counted(written, template.marks(turns) if marked else None)
    return Rendered(whole[:close], boundary, spans, ends)


def _end_of_words(whole: str, start: int, content: str) -> int:
    """Where the words of a cut-off turn end: before the tokens that the template closes it with."""
    if not content.strip():
        return start
    at = whole.rfind(content.strip(), start)
    if at < 0:
        raise Refused("chat template changes the text of a turn")
    return at + len(content.strip())


def _counted(written: Sequence[tuple[int, int]], marks: Spans | None) -> Spans:
    """The parts of the reply that are trained on: its marked characters, up to each turn's end.

    Raises:
        Refused: Nothing of the last turn is marked, so that its end would not be trained.
    """
    if marks is None:
        return tuple(written)
    spans: list[tuple[int, int]] = []
    for start, end in written:
        inside = [(max(a, start), min(b, end)) for a, b in marks if a < end and b > start]
        spans += inside[:-1] + [(a, end) for a, _ in inside[-1:]]
    if not spans or spans[-1][1] != written[-1][1]:
        raise Refused("chat template marks nothing of the last turn as the assistant's")
    return tuple(spans)
