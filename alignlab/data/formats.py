"""From records (a line of JSON, a row of a table) to typed rows.

Which columns a set has decides its layout once, for the whole set; whether a text is plain or a
conversation is what most of its rows are. Every row is then held to that, one by one, so a set
whose first row is odd is not read wrongly, and an odd row is counted instead of guessed at.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.data.rows import (
    Chat,
    Demonstration,
    JudgedCompletion,
    Judgement,
    LabelledText,
    PreferencePair,
    Prompt,
    R,
    Ranking,
    RatedCompletion,
    Refusals,
    Refused,
    Row,
    Text,
    Turn,
    validate,
)
from alignlab.errors import DataError

ASSISTANT = "\n\nAssistant:"  # opens a reply in dialogues written as in Anthropic's HH
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One unread row: where it stands (file:line or row number) and its fields, if it has any."""

    where: str
    fields: Fields | None
    problem: str = ""  # why there are no fields


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of one set are written.

    Args:
        needs: Columns it cannot do without.
        lead: The column that shows whether the set is plain or conversational.
        parse: Makes a row of one record.
    """

    needs: tuple[str, ...]
    lead: str
    parse: Callable[["Reader"], Row]


class Reader:
    """The fields of one record, read with their types checked.

    Args:
        id: The row's name.
        fields: Its columns.
        chat: Whether the set's texts are conversations.
        whole: Whether the set's completions repeat the prompt.
    """

    def __init__(self, id: str, fields: Fields, chat: bool, whole: bool) -> None:
        self.id, self.fields, self.chat, self.whole = id, fields, chat, whole

    def plain(self, name: str) -> str:
        """A string."""
        return _as_plain(name, self._get(name))

    def turns(self, name: str) -> Chat:
        """A conversation: a list of ``{role, content}``."""
        return _as_turns(name, self._get(name))

    def text(self, name: str) -> Text:
        """A string or a conversation, whichever the set holds."""
        return self.turns(name) if self.chat else self.plain(name)

    def texts(self, name: str) -> tuple[Text, ...]:
        """A list of strings or of conversations, whichever the set holds."""
        values = _as_list(name, self._get(name), "a list of texts")
        return tuple((_as_turns if self.chat else _as_plain)(name, value) for value in values)

    def number(self, name: str) -> float | None:
        """A number, or ``None`` where the column is absent or empty."""
        value = self.fields.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise Refused(f"wrong type in {name!r}", f": wants a number, got {_kind(value)}")
        return float(value)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        values = _as_list(name, self._get(name), "a list of numbers")
        for value in values:
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise Refused(f"wrong type in {name!r}", f": wants numbers, got {_kind(value)}")
        return tuple(map(float, values))

    def flags(self, name: str) -> tuple[bool, ...] | None:
        """A list of truth values, or ``None`` where the column is absent or empty."""
        if self.fields.get(name) is None:
            return None
        values = _as_list(name, self.fields[name], "a list of true or false")
        if not all(isinstance(value, bool) for value in values):
            raise Refused(f"wrong type in {name!r}", ": wants a list of true or false")
        return tuple(values)

    def flag(self, name: str) -> bool:
        """A truth value; True where the column is absent or empty."""
        value = self.fields.get(name)
        if value is None:
            return True
        if not isinstance(value, bool):
            raise Refused(f"wrong type in {name!r}", f": wants true or false, got {_kind(value)}")
        return value

    def judgement(self, name: str) -> Judgement:
        """``desirable`` or ``undesirable``, or a truth value that says the first."""
        value = self._get(name)
        if value is True or value == "desirable":
            return "desirable"
        if value is False or value == "undesirable":
            return "undesirable"
        raise Refused(
            f"wrong value in {name!r}", f": wants desirable or undesirable, got {_kind(value)}"
        )

    def _get(self, name: str) -> Any:
        if self.fields.get(name) is None:
            raise Refused(f"missing column {name!r}")
        return self.fields[name]


def to_rows(
    records: Sequence[Record], kind: type[R], refusals: Refusals, limit: int | None = None
) -> list[R]:
    """Make typed rows of records.

    Args:
        records: All records of one set.
        kind: Which rows to make.
        refusals: Where refused rows are counted, by reason.
        limit: Stop after this many usable rows.

    Raises:
        DataError: A column is missing in the whole set, or no row can be used.
    """
    found = sorted({name for record in records for name in record.fields or ()})
    readable = [record for record in records if record.fields is not None]
    layout = find_layout(kind, found, refusals.source) if readable else None
    chat = layout is not None and _mostly_chat(layout.lead, readable)
    whole = layout is not None and _completions_repeat_prompt(layout, readable)
    rows: list[R] = []
    names = Names()
    for record in records:
        if limit is not None and len(rows) >= limit:
            break
        refusals.seen += 1
        name = names.give(record)
        try:
            if record.fields is None or layout is None:
                raise Refused("not readable as a row", f" ({record.problem})")
            row = layout.parse(Reader(name, record.fields, chat, whole))
            validate(row)
        except Refused as problem:
            refusals.add(record.where, problem)
        else:
            assert isinstance(row, kind)
            rows.append(row)
    refusals.notes += names.notes
    refusals.require_rows(len(rows))
    return rows


def find_layout(kind: type[Row], found: Sequence[str], source: str) -> Layout:
    """The first layout of ``kind`` whose columns are all there.

    Raises:
        DataError: None fits; lists the columns found and what would do.
    """
    for layout in LAYOUTS[kind]:
        if set(layout.needs) <= set(found):
            return layout
    wanted = " or ".join(" + ".join(layout.needs) for layout in LAYOUTS[kind])
    closest = min(LAYOUTS[kind], key=lambda layout: len(set(layout.needs) - set(found)))
    missing = ", ".join(name for name in closest.needs if name not in found)
    raise DataError(
        f"{source}: missing column {missing}; a {kind.__name__} needs {wanted}. "
        f"Columns found: {', '.join(found) or 'none'}. Rename them, or map them with columns, e.g. "
        f"columns: {{{closest.needs[0]}: {next(iter(found), 'name')}}}."
    )


def _prompt(read: Reader) -> Prompt:
    return Prompt(read.id, read.text("prompt"))


def _prompt_of_messages(read: Reader) -> Prompt:
    turns = read.turns("messages")
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not turns:
        raise Refused("empty prompt in 'messages'")
    return Prompt(read.id, turns)


def _prompt_of_pair(read: Reader) -> Prompt:
    return Prompt(read.id, _implicit_pair(read).prompt)


def _demonstration(read: Reader) -> Demonstration:
    prompt, completion = read.text("prompt"), read.text("completion")
    if read.whole:
        completion = _without(prompt, completion)
    _check_reply("completion", completion)
    return Demonstration(read.id, prompt, completion, ends=read.flag("ends"))


def _demonstration_of_messages(read: Reader) -> Demonstration:
    turns = read.turns("messages")
    first = next((k for k, turn in enumerate(turns) if turn.role == "assistant"), None)
    if first is None:
        raise Refused("no assistant turn in 'messages'")
    last = max(k for k, turn in enumerate(turns) if turn.role == "assistant")
    if last != len(turns) - 1:
        raise Refused("'messages' does not end with an assistant turn")
    return Demonstration(read.id, turns[:first], turns[first:], ends=read.flag("ends"))


def _pair(read: Reader) -> PreferencePair:
    if read.chat and isinstance(read.fields.get("prompt"), str):
        # A plain copy of the question beside whole conversations, as in UltraFeedback.
        pair = _implicit_pair(read)
        if not pair.prompt or pair.prompt[-1] != Turn("user", read.plain("prompt")):
            raise Refused("prompt of the pair is not shared")
        return pair
    prompt, chosen, rejected = (read.text(name) for name in ("prompt", "chosen", "rejected"))
    if read.whole:
        chosen, rejected = _without(prompt, chosen), _without(prompt, rejected)
    return _checked_pair(read, prompt, chosen, rejected)


def _implicit_pair(read: Reader) -> PreferencePair:
    """Prompt and replies of a pair that is written as two whole dialogues."""
    chosen, rejected = read.text("chosen"), read.text("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        cuts = [text.rfind(ASSISTANT) + len(ASSISTANT) for text in (chosen, rejected)]
        if min(cuts) < len(ASSISTANT):
            raise Refused("no 'prompt' column and no '\\n\\nAssistant:' turn to find it by")
        if chosen[: cuts[0]] != rejected[: cuts[1]]:
            raise Refused("prompt of the pair is not shared")
        prompt, chosen, rejected = chosen[: cuts[0]], chosen[cuts[0] :], rejected[cuts[1] :]
        return _checked_pair(read, prompt, chosen, rejected)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise Refused("prompt of the pair is not shared")
    return _checked_pair(read, chosen[:shared], chosen[shared:], rejected[shared:])


def _chosen_of_pair(read: Reader) -> Demonstration:
    return _chosen(_pair(read))


def _chosen_of_implicit_pair(read: Reader) -> Demonstration:
    return _chosen(_implicit_pair(read))


def _chosen(pair: PreferencePair) -> Demonstration:
    """The preferred side, of exactly those rows that can be used as pairs."""
    validate(pair)
    return Demonstration(pair.id, pair.prompt, pair.chosen, ends=pair.chosen_ends)


def _checked_pair(read: Reader, prompt: Text, chosen: Text, rejected: Text) -> PreferencePair:
    _check_reply("chosen", chosen)
    _check_reply("rejected", rejected)
    return PreferencePair(
        read.id,
        prompt,
        chosen,
        rejected,
        chosen_ends=read.flag("chosen_ends"),
        rejected_ends=read.flag("rejected_ends"),
        margin=read.number("margin"),
    )


def _ranking(read: Reader) -> Ranking:
    completions = read.texts("completions")
    for completion in completions:
        _check_reply("completions", completion)
    ranks = read.numbers("ranks")
    levels = sorted(set(ranks))
    dense = tuple(levels.index(rank) for rank in ranks)
    return Ranking(read.id, read.text("prompt"), completions, dense, read.flags("ends"))


def _rated(read: Reader) -> RatedCompletion:
    said = _demonstration(read)
    rating = read.number("rating")
    if rating is None:
        raise Refused("missing column 'rating'")
    return RatedCompletion(said.id, said.prompt, said.completion, rating, said.ends)


def _judged(read: Reader) -> JudgedCompletion:
    said, label = _demonstration(read), read.judgement("label")
    return JudgedCompletion(said.id, said.prompt, said.completion, label, said.ends)


def _labelled(read: Reader) -> LabelledText:
    return LabelledText(read.id, read.plain("text"), read.number("label"))


LAYOUTS: dict[type[Row], tuple[Layout, ...]] = {
    Prompt: (
        Layout(("prompt",), "prompt", _prompt),
        Layout(("messages",), "messages", _prompt_of_messages),
        Layout(("chosen", "rejected"), "chosen", _prompt_of_pair),
    ),
    Demonstration: (
        Layout(("prompt", "completion"), "completion", _demonstration),
        Layout(("messages",), "messages", _demonstration_of_messages),
        Layout(("prompt", "chosen", "rejected"), "chosen", _chosen_of_pair),
        Layout(("chosen", "rejected"), "chosen", _chosen_of_implicit_pair),
    ),
    PreferencePair: (
        Layout(("prompt", "chosen", "rejected"), "chosen", _pair),
        Layout(("chosen", "rejected"), "chosen", _implicit_pair),
    ),
    Ranking: (Layout(("prompt", "completions", "ranks"), "prompt", _ranking),),
    RatedCompletion: (Layout(("prompt", "completion", "rating"), "completion", _rated),),
    JudgedCompletion: (Layout(("prompt", "completion", "label"), "completion", _judged),),
    LabelledText: (Layout(("text",), "text", _labelled),),
}


class Names:
    """Names of rows: no two alike, whatever ids their author gave.

    A row is called by its own id where it has one, else by where it stands. An id that an earlier
    row has gets a number, in the order of the rows: ids are labels, and results are joined by name.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._repeated: list[str] = []

    def give(self, record: Record) -> str:
        """The name of one row."""
        own = (record.fields or {}).get("id")
        wanted = str(own) if isinstance(own, int | str) and own != "" else record.where
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}#{number}"
        self._taken.add(name)
        if name != wanted:
            self._repeated.append(f"{record.where} is called {name}")
        return name

    @property
    def notes(self) -> list[str]:
        """What to tell of ids that repeat."""
        if not self._repeated:
            return []
        count, first = len(self._repeated), self._repeated[0]
        return [f"ids repeat in {count:,} rows, which are told apart by a number: {first}"]


def _as_plain(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"wrong type in {name!r}", f": wants a string, got {_kind(value)}")
    return value


def _as_turns(name: str, value: Any) -> Chat:
    turns = _as_list(name, value, "a list of role and content")
    return tuple(_turn(name, turn) for turn in turns)


def _as_list(name: str, value: Any, wants: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Refused(f"wrong type in {name!r}", f": wants {wants}, got {_kind(value)}")
    return value


def _turn(name: str, value: Any) -> Turn:
    if isinstance(value, Mapping):
        role, content = value.get("role"), value.get("content")
        if isinstance(role, str) and isinstance(content, str):
            return Turn(role, content)
    raise Refused(f"wrong type in {name!r}", ": a turn needs 'role' and 'content', both strings")


def _check_reply(name: str, text: Text) -> None:
    if not isinstance(text, str) and (not text or text[0].role != "assistant"):
        raise Refused("completion does not start with an assistant turn", f" in {name!r}")


def _without(prompt: Text, whole: Text) -> Text:
    if whole[: len(prompt)] != prompt:
        raise Refused("prompt of the pair is not shared")
    return whole[len(prompt) :]


def _mostly_chat(lead: str, records: Iterable[Record]) -> bool:
    values = [(record.fields or {}).get(lead) for record in records]
    chats = sum(isinstance(value, Sequence) and not isinstance(value, str) for value in values)
    return chats > sum(isinstance(value, str) for value in values)


def _completions_repeat_prompt(layout: Layout, records: Sequence[Record]) -> bool:
    """Whether most completions start with the (non-empty) prompt, as in dialogue files."""
    if "prompt" not in layout.needs or layout.lead == "prompt":
        return False
    pairs = [((r.fields or {}).get("prompt"), (r.fields or {}).get(layout.lead)) for r in records]
    return sum(map(_starts_with, pairs)) > len(records) / 2


def _starts_with(pair: tuple[Any, Any]) -> bool:
    prompt, whole = pair
    alike = type(prompt) is type(whole) and isinstance(prompt, str | list | tuple)
    return alike and bool(prompt) and whole[: len(prompt)] == prompt


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
