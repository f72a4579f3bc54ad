"""From records (a line of JSON, a row of a table) to typed rows.

Which columns a set has decides its layout once, for the whole set; whether a text is plain or a
conversation is what most of its rows are. Every row is then held to that, one by one, so a set
whose first row is odd is not read wrongly, and an odd row is counted instead of guessed at.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignlab.data.reader import Fields, Reader, Record, is_chat, printable, tools_of
from alignlab.data.rows import (
    Demonstration,
    JudgedCompletion,
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
from alignlab.errors import ConfigError, DataError

ASSISTANT = "\n\nAssistant:"  # opens a reply in dialogues written as in Anthropic's HH
# The columns that are plain or conversations.
TEXTS = ("prompt", "completion", "chosen", "rejected", "completions", "messages")


ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{task}\n\n### Response:"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{task}\n\n### Input:\n{given}\n\n### Response:"
)


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
    parse: Callable[[Reader], Row]


def to_rows(
    records: Sequence[Record],
    kind: type[R],
    refusals: Refusals,
    limit: int | None = None,
    columns: Collection[str] = (),
    picked: Collection[str] = (),
) -> list[R]:
    """Make typed rows of records.

    Args:
        records: All records of one set.
        kind: Which rows to make.
        refusals: Where refused rows are counted, by reason, and columns that nothing reads.
        limit: Stop after this many usable rows.
        columns: Names that the user gave to columns: each must be read.
        picked: Columns that the records were chosen by.

    Raises:
        DataError: A column is missing in the whole set, or no row can be used.
        ConfigError: One of ``columns`` is no column of this kind of row.
    """
    found = sorted({name for record in records for name in record.fields or ()})
    records, written = _translated(records, found)
    readable = [record for record in records if record.fields is not None]
    named = sorted({name for record in readable for name in record.fields or ()})
    layout = find_layout(kind, named, refusals.source) if readable else None
    chats = _mostly_chats(readable)
    whole = layout is not None and _completions_repeat_prompt(layout, readable)
    if whole:
        assert layout is not None
        refusals.notes.append(f"prompts are taken off {layout.lead!r}, which repeats them")
    rows: list[R] = []
    names, used = Names(), {"id", *picked}
    for record in records:
        if limit is not None and len(rows) >= limit:
            break
        refusals.seen += 1
        name = names.give(record)
        try:
            if record.fields is None or layout is None:
                raise Refused("not readable as a row", f" ({record.problem})")
            read = Reader(
                name, record.fields, chats=chats, lead=layout.lead, whole=whole, used=used
            )
            row = _with_context(read, layout.parse(read))
            validate(row)
        except RecursionError:
            refusals.add(record.where, Refused("nested too deeply"))
        except Refused as problem:
            refusals.add(record.where, _in_their_words(problem, written))
        else:
            assert isinstance(row, kind)
            rows.append(row)
    refusals.notes += names.notes
    if unread := sorted(set(columns) - used) if layout is not None else []:
        raise ConfigError(
            f"columns gives a column the name {unread[0]}, which no {kind.__name__} of "
            f"{refusals.source} reads. It reads {', '.join(sorted(used))}."
        )
    read_of = {old for new in used for old in written.get(new, (new,))}
    _count_unused(readable, found, read_of, refusals)
    refusals.require_rows(len(rows))
    return rows


def _translated(
    records: Sequence[Record], found: Sequence[str]
) -> tuple[Sequence[Record], dict[str, tuple[str, ...]]]:
    """Alpaca's and ShareGPT's columns under our names, and what each of ours is made of."""
    known, ours = set(found), {"prompt", "messages"}
    if "conversations" in known and not ours & known:
        pair = {"chosen", "rejected"} <= known
        written: dict[str, tuple[str, ...]] = {"prompt" if pair else "messages": ("conversations",)}
    elif "instruction" in known and not ours & known:
        written = {"prompt": ("instruction", "input")}
        if "completion" not in known:
            written["completion"] = ("output",)
    else:
        return records, {}

    def translate(fields: Fields) -> Fields:
        made = {
            ours: alpaca_prompt(fields) if len(names) > 1 else fields.get(names[0])
            for ours, names in written.items()
        }
        return {**fields, **made}

    return [replace(r, fields=r.fields and translate(r.fields)) for r in records], written


def _in_their_words(problem: Refused, written: Mapping[str, Sequence[str]]) -> Refused:
    """The refusal with the names that the set's own columns have."""
    reason = problem.reason
    for ours, theirs in written.items():
        reason = reason.replace(f"'{ours}'", f"'{theirs[0]}'")
    return Refused(reason, problem.detail)


def alpaca_prompt(fields: Fields) -> Any:
    """The prompt that Alpaca was trained on (Taori et al. 2023, ``train.py`` of its repository)."""
    task, given = fields.get("instruction"), fields.get("input")
    if not isinstance(task, str) or not isinstance(given, str | None):
        return given if isinstance(task, str) else task  # refused for its type
    if not given:
        return ALPACA.format(task=task)
    return ALPACA_WITH_INPUT.format(task=task, given=given)


def _count_unused(
    records: Sequence[Record], found: Sequence[str], used: set[str], refusals: Refusals
) -> None:
    for name in found:
        holds = sum((r.fields or {}).get(name) not in (None, "", [], {}) for r in records)
        if name not in used and holds:
            refusals.unused[printable(name) or "(without a name)"] = holds


def _with_context(read: Reader, row: Row) -> Row:
    """A conversation with what columns of their own say of it: its system turn and its tools."""
    prompt = None if isinstance(row, LabelledText) else row.prompt
    if not isinstance(prompt, tuple) or isinstance(row, LabelledText):
        return row
    if read.value("system"):
        first = Turn("system", read.plain("system"))
        if prompt and prompt[0].role == "system" and prompt[0] != first:
            raise Refused("'system' and the conversation's own system turn differ")
        prompt = prompt if prompt[:1] == (first,) else (first, *prompt)
    if prompt and (tools := tools_of(read.value("tools"))):
        prompt = (prompt[0].with_extra("tools", tools), *prompt[1:])
    return replace(row, prompt=prompt) if prompt != row.prompt else row


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
    found = [printable(name) for name in found if name]
    raise DataError(
        f"{source}: missing column {missing}; a {kind.__name__} needs {wanted}. "
        f"Columns found: {', '.join(found) or 'none'}. Rename them, or map them with columns, e.g. "
        f"columns: {{{closest.needs[0]}: {next(iter(found), 'name')}}}."
    )


def _prompt(read: Reader) -> Prompt:
    """The prompt; beside whole conversations a plain one is a copy of their question."""
    if not read.chat and {"chosen", "rejected"} <= read.chats:
        return Prompt(read.id, _pair(read.as_chat()).prompt)
    if not read.chat and "messages" in read.chats:
        copied, turns = Turn("user", read.plain("prompt")), read.turns("messages")
        if copied not in turns:
            raise Refused("'prompt' is no turn of 'messages'")
        return Prompt(read.id, turns[: turns.index(copied) + 1])
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
    if read.chat and "prompt" not in read.chats and isinstance(read.value("prompt"), str):
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
        wanted = printable(str(own)) if isinstance(own, int | str) and own != "" else record.where
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


def _check_reply(name: str, text: Text) -> None:
    if not isinstance(text, str) and (not text or text[0].role != "assistant"):
        raise Refused("completion does not start with an assistant turn", f" in {name!r}")


def _without(prompt: Text, whole: Text) -> Text:
    if whole[: len(prompt)] != prompt:
        raise Refused("prompt of the pair is not shared")
    return whole[len(prompt) :]


def _mostly_chats(records: Sequence[Record]) -> frozenset[str]:
    """The columns that may be plain and hold more conversations than plain texts."""
    columns = {name for name in TEXTS for record in records if name in (record.fields or {})}
    return frozenset(name for name in columns if _mostly_chat(name, records))


def _mostly_chat(name: str, records: Iterable[Record]) -> bool:
    values = [(record.fields or {}).get(name) for record in records]
    chats = [is_chat(value) for value in values]
    plain = [isinstance(v, str) and not c for v, c in zip(values, chats, strict=True)]
    return sum(chats) > sum(plain)


def _completions_repeat_prompt(layout: Layout, records: Sequence[Record]) -> bool:
    """Whether most completions start with the (non-empty) prompt, as in dialogue files.

    Of a text the prompt must be whole words there: "the" is no beginning of "then".
    """
    if "prompt" not in layout.needs or layout.lead == "prompt":
        return False
    pairs = [((r.fields or {}).get("prompt"), (r.fields or {}).get(layout.lead)) for r in records]
    return sum(map(_starts_with, pairs)) > len(records) / 2


def _starts_with(pair: tuple[Any, Any]) -> bool:
    prompt, whole = pair
    alike = type(prompt) is type(whole) and isinstance(prompt, str | list | tuple)
    if not alike or not prompt or whole[: len(prompt)] != prompt:
        return False
    return not isinstance(whole, str) or not re.match(r"\w\w", whole[len(prompt) - 1 :])
