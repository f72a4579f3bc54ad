"""What a row of data is, when it is refused, and the record of what was refused.

A row holds text as its author wrote it: a plain string, or a conversation (turns) that is rendered
later with the tokenizer's chat template. Prompt and completion are concatenated as they are, so a
completion carries its own leading space. ``ends`` says that the text is complete; where it is
False the text was cut off and no end-of-text token is appended or trained.
"""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from alignlab.errors import ConfigError, DataError

Refuse = Literal["drop", "error"]
REFUSE: tuple[Refuse, ...] = ("drop", "error")
EXAMPLES = 3  # refused rows that a report names of each reason


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation: who says what.

    ``extra`` is what else the message holds, as JSON: its tool calls, its reasoning, a name; and of
    a conversation's first turn the ``tools`` that may be called. Chat templates get it.
    """

    role: str
    content: str
    extra: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """What the message holds beside role and content."""
        return json.loads(self.extra) if self.extra else {}

    def with_extra(self, name: str, value: Any) -> "Turn":
        """The turn with one more field."""
        return replace(self, extra=json.dumps(self.fields | {name: value}, ensure_ascii=False))

    def without(self, name: str) -> "Turn":
        """The turn without a field."""
        left = {key: value for key, value in self.fields.items() if key != name}
        return replace(self, extra=json.dumps(left, ensure_ascii=False) if left else "")

    @property
    def says_nothing(self) -> bool:
        """Whether there is neither text nor a call in it."""
        return not self.content.strip() and not {"tool_calls", "function_call"} & set(self.fields)


Judgement = Literal["desirable", "undesirable"]
Chat = tuple[Turn, ...]
Text = str | Chat


@dataclass(frozen=True, slots=True)
class Prompt:
    """Something to complete."""

    id: str
    prompt: Text


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt with a completion to imitate.

    In a conversation ``completion`` starts with the assistant's turn and may go on over several
    turns; the assistant's are trained on.
    """

    id: str
    prompt: Text
    completion: Text
    ends: bool = True


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two completions of one prompt, the preferred one first; ``margin`` says by how much."""

    id: str
    prompt: Text
    chosen: Text
    rejected: Text
    chosen_ends: bool = True
    rejected_ends: bool = True
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Completions of one prompt and how they rank: 0 is the best, equal ranks are a tie.

    ``ends`` says of each completion that it is complete; left out, all are.
    """

    id: str
    prompt: Text
    completions: tuple[Text, ...]
    ranks: tuple[int, ...]
    ends: tuple[bool, ...] | None = None


@dataclass(frozen=True, slots=True)
class RatedCompletion:
    """A completion and the number that somebody gave it; larger is better."""

    id: str
    prompt: Text
    completion: Text
    rating: float
    ends: bool = True


@dataclass(frozen=True, slots=True)
class JudgedCompletion:
    """A completion that somebody called desirable or undesirable."""

    id: str
    prompt: Text
    completion: Text
    label: Judgement
    ends: bool = True


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A whole text and its class or rating, if it has one."""

    id: str
    text: str
    label: float | None = None


Row = (
    Prompt
    | Demonstration
    | PreferencePair
    | Ranking
    | RatedCompletion
    | JudgedCompletion
    | LabelledText
)
R = TypeVar(
    "R",
    Prompt,
    Demonstration,
    PreferencePair,
    Ranking,
    RatedCompletion,
    JudgedCompletion,
    LabelledText,
)


class Refused(Exception):
    """A row that cannot be used: ``reason`` is what is counted, ``detail`` what this row had."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason + detail)
        self.reason, self.detail = reason, detail


@dataclass(slots=True)
class Refusals:
    """Every refused row of one source: why, which, and how many there were to begin with.

    Args:
        source: The file, hub id or data set that the rows come from, for messages.
        refuse: ``drop`` counts a refused row and goes on; ``error`` stops at the first.
        seen: Rows there were to begin with.
        by_reason: Reason -> where each refused row stands.
        unused: Columns that nothing reads, each with the number of rows it holds something in.
        notes: What else somebody who knows the rows should be told, a sentence each.
    """

    source: str
    refuse: Refuse = "drop"
    seen: int = 0
    by_reason: dict[str, list[str]] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.refuse not in REFUSE:
            raise ConfigError(f"refuse must be one of {REFUSE}, got {self.refuse!r}.")

    @property
    def count(self) -> int:
        """How many rows were refused."""
        return sum(map(len, self.by_reason.values()))

    @property
    def counts(self) -> dict[str, int]:
        """Refused rows by reason, the commonest first."""
        counts = Counter({reason: len(ids) for reason, ids in self.by_reason.items()})
        return dict(counts.most_common())

    def add(self, id: str, problem: Refused) -> None:
        """Record that the row ``id`` was refused.

        Raises:
            DataError: At once, with ``refuse="error"``.
        """
        if self.refuse == "error":
            raise DataError(
                f"{id}: {problem}. Repair or remove the row, or set refuse=drop to leave such rows "
                f"out of {self.source} with a count."
            )
        self.by_reason.setdefault(problem.reason, []).append(id)

    def merge(self, later: "Refusals") -> "Refusals":
        """These refusals and those of a later step that saw what was left of the same rows."""
        both = {reason: list(ids) for reason, ids in self.by_reason.items()}
        for reason, ids in later.by_reason.items():
            both.setdefault(reason, []).extend(ids)
        return replace(self, by_reason=both)

    def examples(self, reason: str) -> str:
        """The first few rows refused for ``reason``."""
        rows = self.by_reason[reason]
        return ", ".join([*rows[:EXAMPLES], *(["..."] if len(rows) > EXAMPLES else [])])

    def lines(self) -> list[str]:
        """A line for each reason, with the first few rows it hit, and for what else is left out."""
        refused = [
            f"  refused {count:,} x {reason}: {self.examples(reason)}"
            for reason, count in self.counts.items()
        ]
        unused = ", ".join(self.unused)
        columns = [f"  columns that nothing reads: {unused}"] if unused else []
        return [*refused, *columns, *(f"  {note}" for note in self.notes)]

    def tell(self) -> None:
        """Say on standard error what is left out, if anything is."""
        if lines := self.lines():
            kept = f"{self.source}: {self.seen - self.count:,} of {self.seen:,} rows kept"
            print("\n".join([kept, *lines]), file=sys.stderr, flush=True)

    def require_rows(self, usable: int) -> None:
        """Stop when nothing is left.

        Raises:
            DataError: No usable row; names the source and the commonest reasons.
        """
        if usable:
            return
        if not self.seen:
            raise DataError(f"{self.source}: holds no rows. Pass a source with at least one row.")
        why = "; ".join(
            f"{reason} ({count:,} rows, first {self.by_reason[reason][0]})"
            for reason, count in list(self.counts.items())[:3]
        )
        raise DataError(
            f"{self.source}: none of its {self.seen:,} rows can be used: {why}. "
            "Repair the rows or the settings that refuse them."
        )


def validate(row: Row) -> None:
    """Check one row's values.

    Raises:
        Refused: With the reason why the row cannot be used.
    """
    match row:
        case Prompt():
            _check_text("prompt", row.prompt)
        case Demonstration() | JudgedCompletion():
            _check_text("prompt", row.prompt)
            _check_completion("completion", row.completion)
        case PreferencePair():
            _check_pair(row)
        case Ranking():
            _check_ranking(row)
        case RatedCompletion():
            _check_text("prompt", row.prompt)
            _check_completion("completion", row.completion)
            _check_number("rating", row.rating)
        case LabelledText():
            _check_text("text", row.text)
            if is_blank(row.text):
                raise Refused("empty text")
            _check_number("label", row.label)


def is_blank(text: Text) -> bool:
    """Whether a text says nothing; a conversation is as empty as its last turn."""
    if isinstance(text, str):
        return not text.strip()
    return not text or text[-1].says_nothing


def split_by_prompt(rows: Sequence[R], share: float, seed: int) -> tuple[list[R], list[R]]:
    """Split rows in two so that all rows of one prompt (or text) fall on one side.

    The side is a pure function of (seed, prompt): growing or reordering the set moves no row.

    Args:
        rows: Rows to split.
        share: Expected share of prompts in the second part, in [0, 1).
        seed: Another seed gives another split.

    Returns:
        The rows to train on, the rows held out.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of rows to hold out must lie in [0, 1), got {share}.")
    parts: tuple[list[R], list[R]] = ([], [])
    for row in rows:
        parts[unit_hash(prompt_key(row), seed) < share].append(row)
    return parts


def prompt_key(row: Row) -> str:
    """The text that says whether two rows belong to one prompt."""
    text = row.text if isinstance(row, LabelledText) else row.prompt
    if isinstance(text, str):
        return text
    return repr([(turn.role, turn.content, turn.extra)[: 2 + bool(turn.extra)] for turn in text])


def unit_hash(text: str, seed: int) -> float:
    """A number in [0, 1) that is a pure function of (text, seed)."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _check_pair(row: PreferencePair) -> None:
    _check_text("prompt", row.prompt)
    _check_completion("chosen", row.chosen)
    _check_completion("rejected", row.rejected)
    if row.chosen == row.rejected and row.chosen_ends == row.rejected_ends:
        raise Refused("chosen and rejected are identical")
    _check_number("margin", row.margin)


def _check_ranking(row: Ranking) -> None:
    _check_text("prompt", row.prompt)
    ends = row.ends or (True,) * len(row.completions)
    if not len(row.completions) == len(row.ranks) == len(ends):
        raise Refused("'completions', 'ranks' and 'ends' differ in length")
    for completion in row.completions:
        _check_completion("completions", completion)
    if len(set(row.ranks)) < 2:
        raise Refused("nothing to compare: fewer than two ranks")
    texts = list(zip(row.completions, ends, strict=True))
    if len(set(texts)) < len(set(zip(texts, row.ranks, strict=True))):
        raise Refused("one completion has two ranks")


def _check_completion(name: str, text: Text) -> None:
    _check_text(name, text)
    turns = () if isinstance(text, str) else text
    if is_blank(text) or any(turn.role == "assistant" and turn.says_nothing for turn in turns):
        raise Refused("empty completion", f" in {name!r}")


def _check_text(name: str, text: Text) -> None:
    turns = () if isinstance(text, str) else text
    parts = [part for turn in turns for part in (turn.role, turn.content, turn.extra)]
    for part in [text] if isinstance(text, str) else parts:
        try:
            part.encode()
        except UnicodeEncodeError as problem:
            raise Refused("text is not valid Unicode", f" in {name!r}") from problem


def _check_number(name: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise Refused(f"{name!r} is not a finite number", f": {value}")
