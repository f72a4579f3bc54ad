"""Nested values: lists, conversations and tools, given as such or as JSON or Python text."""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.data.rows.values import Chat, Refused, Turn

NAMES = ("role", "content"), ("from", "value")  # how messages are written: OpenAI's, ShareGPT's
ROLES = {  # ShareGPT's speakers
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "chatgpt": "assistant",
    "observation": "tool",
    "function_response": "tool",
}

OTHER_ROLES = {  # what else is written as a role, and what templates call it
    **{name: ROLES[name] for name in ("system", "user", "human", "assistant", "gpt", "chatgpt")},
    **{"tool": "tool", "developer": "developer"},
    **dict.fromkeys(("model", "bot", "ai"), "assistant"),
}


class ChatVote:
    """Whether a column holds more conversations than plain texts, counted value by value."""

    def __init__(self) -> None:
        self._odd, self._chats, self._plain = False, 0, 0

    def count(self, value: Any) -> None:
        """Count one value; a null is neither."""
        if _plain(value):
            self._plain += 1
            return
        chat = is_chat(value)
        self._odd = self._odd or not _plain(value or "")
        self._chats += chat
        self._plain += isinstance(value, str) and not chat

    @property
    def won(self) -> bool:
        """Whether they are conversations. Empty lists alone are none."""
        return self._odd and self._chats > self._plain


def _plain(value: Any) -> bool:
    """Whether a value is plain text, and not a list or an object written as text."""
    return isinstance(value, str) and value.lstrip()[:1] not in ("[", "{")


def is_chat(value: Any) -> bool:
    """Whether a value, or the text that it is, is a conversation or one message of it."""
    found = parsed(value)
    if found is value and not isinstance(value, str):
        return isinstance(value, Sequence | Mapping)
    turns = [found] if isinstance(found, Mapping) else found
    return isinstance(turns, list) and bool(turns) and all(map(_is_message, turns))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(set(names) <= set(value) for names in NAMES)


def parsed(value: Any) -> Any:
    """Parse a text that is a list or object in JSON or Python's notation; else return the value."""
    if not isinstance(value, str) or _plain(value):
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return value


def as_turns(name: str, value: Any) -> Chat:
    """Read a conversation: a list of messages, or one message."""
    found = parsed(value)
    turns = [found] if isinstance(found, Mapping) else found
    return tuple(_turn(name, t) for t in as_list(name, turns, "a list of role and content"))


def as_list(name: str, value: Any, wants: str) -> Sequence[Any]:
    """A list, given as such or as its text."""
    found = parsed(value)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise Refused(f"wrong type in {name!r}", f": wants {wants}, got {shown(value)}")
    return found


def _turn(name: str, value: Any) -> Turn:
    """A turn in OpenAI's form (role, content) or ShareGPT's (from, value); other keys are kept.

    Raises:
        Refused: It is no turn, or of an unknown speaker.
    """
    keys = next((keys for keys in NAMES if isinstance(value, Mapping) and keys[0] in value), None)
    if keys is not None:
        role, content = value[keys[0]], value.get(keys[1])
        more = {k: without_nulls(v) for k, v in value.items() if k not in keys}
        more = {k: v for k, v in more.items() if v not in (None, "", [], {})}
        if keys[0] == "from":
            if "content" in more:
                raise Refused(f"a turn has 'value' and 'content' in {name!r}")
            if role in ("function_call", "tool_call"):
                return _called(name, content)
            if role not in ROLES:
                raise Refused(f"unknown speaker in {name!r}", f": {shown(role)}")
            role = ROLES[role]
        _check_turn(name, role, content)
        if content is None and more.get("tool_calls"):
            content, more["content"] = "", None  # some templates ask whether it is null
        if isinstance(role, str) and isinstance(content, str):
            return Turn(role, content, as_extra(more))
    got = ", ".join(map(str, value)) if isinstance(value, Mapping) else shown(value)
    wants = f": a turn needs 'role' and 'content', both strings, got {got}"
    raise Refused(f"wrong type in {name!r}", wants)


def _check_turn(name: str, role: Any, content: Any) -> None:
    """Refuse what OpenAI's form allows and no model of text reads.

    Raises:
        Refused: A role that templates call otherwise would be printed as it is, and its turn not be
            trained on; or the content is a list of parts, such as images.
    """
    meant = OTHER_ROLES.get(role.strip().lower(), role) if isinstance(role, str) else role
    if meant != role:
        raise Refused(f"unknown role in {name!r}", f": {role!r}; write {meant!r}")
    if isinstance(content, list | tuple):
        kinds = sorted({str(part.get("type")) for part in content if isinstance(part, Mapping)})
        parts = f": {', '.join(kinds)}; only text is read, and it must be one string"
        raise Refused(f"content in parts in {name!r}", parts)


def _called(name: str, content: Any) -> Turn:
    """ShareGPT's way to write a tool call: a turn of its own, whose text is the call."""
    call = parsed(content)
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise Refused(f"wrong type in {name!r}", ": a function call needs JSON with a 'name'")
    return Turn("assistant", "", as_extra({"tool_calls": [{"type": "function", "function": call}]}))


def as_extra(more: Mapping[str, Any]) -> str:
    """What a message holds beside role and content, as a turn keeps it."""
    return json.dumps(more, ensure_ascii=False, default=str) if more else ""


def without_nulls(value: Any) -> Any:
    """The value without empty fields, because Parquet adds every field to every message."""
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nulls(item) for item in value]
    return value


def printable(name: str) -> str:
    """The name, with characters escaped that cannot be written as text."""
    return name.encode(errors="backslashreplace").decode()


def tools_of(value: Any) -> Any:
    """The tools that a column gives a conversation: a list, or its text; ``None`` for none.

    Raises:
        Refused: Something else.
    """
    found = without_nulls(parsed(value))
    if not found:
        return None
    if not isinstance(found, list):
        raise Refused("wrong type in 'tools'", f": wants a list of tools, got {shown(value)}")
    return found


def shown(value: Any) -> str:
    """A value's type and beginning, for messages."""
    return f"{type(value).__name__} {str(value)[:40]!r}"
