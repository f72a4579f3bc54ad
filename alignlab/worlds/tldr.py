"""TL;DR: Reddit posts with their authors' own summaries, and people's choices between summaries.

The posts are those of Völske et al. 2017, filtered by Stiennon et al. 2020 (arXiv:2009.01325); the
form of a prompt and its truncation follow Huang et al. 2024 (arXiv:2403.17031, details 1-3):

    SUBREDDIT: r/{subreddit}

    TITLE: {title}

    POST: {post}

    TL;DR:

A completion is one space and the summary. Three ways of writing the rows are read: the fields one
by one, the prompt already put together (``trl-lib/tldr``), and OpenAI's comparisons.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from alignlab.data.files import data_files
from alignlab.data.rows import (
    Demonstration,
    Fields,
    PreferencePair,
    Record,
    Refused,
    RowReport,
    unit_hash,
)
from alignlab.data.sources import read_hub, read_records
from alignlab.errors import DataError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
OPENAI_COMPARISONS = "openai/summarize_from_feedback"
# What sources call their parts. OpenAI's own file of held-out posts counts as a test part.
_PART_OF: Mapping[str, Part] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "valid1": "validation",
    "valid2": "validation",
    "test": "test",
    "test_openai": "test",
}
_HEAD = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: "
_TAIL = "\n\nTL;DR:"
_PROMPT = re.compile(
    r"SUBREDDIT: r/(?P<subreddit>[^\n]*)\n+TITLE: (?P<title>.*?)\n+POST: (?P<post>.*)\n+TL;DR:\s*",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")
_ORDER, _PART = 0, 1  # what a post's hash is for
_CHARACTERS = 8  # more than a token stands for, on average over nearly any post
HELD_OUT = 0.05  # share of posts in each held-out part, of a file that names no parts


@dataclass(frozen=True, slots=True)
class Post:
    """What somebody wrote."""

    id: str
    subreddit: str
    title: str
    post: str


@dataclass(frozen=True, slots=True)
class Summarised(Post):
    """A post with its author's summary."""

    summary: str


@dataclass(frozen=True, slots=True)
class Compared(Post):
    """A post with two summaries, the preferred one first."""

    chosen: str
    rejected: str


P = TypeVar("P", Summarised, Compared)


class Gathered(NamedTuple, Generic[P]):
    """One part of a source: its usable rows, and what was refused."""

    rows: list[P]
    refusals: RowReport


class Fitted(NamedTuple):
    """A prompt within its bound, and where its post was cut: not at all, at a newline, ..."""

    prompt: str
    cut: Literal["", "newline", "sentence", "word", "character"]


def prompt_of(post: Post) -> str:
    """The prompt that asks for a summary; it ends in ``TL;DR:``."""
    return _head(post) + post.post + _TAIL


def fit_prompt(
    post: Post, tokenizer: "PreTrainedTokenizerBase", max_tokens: int, *, fullest: float = 0.5
) -> Fitted:
    """The prompt of ``post``, whose text is cut at its end until the whole has ``max_tokens``.

    The cut falls on the last newline that leaves room, else the last end of a sentence, else the
    last space; what comes after the post is never cut. Huang et al. always cut at a newline, which
    under a small bound leaves only a greeting of many posts.

    Args:
        post: Any post.
        tokenizer: The policy's, a fast one.
        max_tokens: Bound on the prompt's tokens, special tokens not counted.
        fullest: A newline or sentence is only cut at if this share of what would fit stays; 0
            always cuts at a newline, if there is one.

    Raises:
        Refused: Subreddit and title alone fill the bound.
    """

    def coded(text: str) -> "BatchEncoding":
        return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)

    def fits(text: str) -> bool:
        return len(coded(head + text + _TAIL)["input_ids"]) <= max_tokens

    head = _head(post)
    room = max(max_tokens - len(coded(_TAIL)["input_ids"]), 0)
    offsets = coded((head + post.post)[: _CHARACTERS * max_tokens])["offset_mapping"]
    if len(offsets) <= room:  # the whole post, or tokens that are unusually long
        if fits(post.post):
            return Fitted(prompt_of(post), "")
        offsets = coded(head + post.post)["offset_mapping"]
    longest = offsets[:room][-1][1] - len(head) if room else 0
    cut, text = _cut(post.post, longest, fullest)
    while text and not fits(text):  # a token that merges with what follows the post
        text = text[:-1].rstrip()
    if not text:
        raise Refused("no room for the post", f" in {max_tokens} tokens")
    return Fitted(head + text + _TAIL, cut)


def read_posts(source: str | Path) -> dict[Part, Gathered[Summarised]]:
    """Posts with their authors' summaries, in parts that share no post.

    Args:
        source: A hub id (``trl-lib/tldr``, or OpenAI's filtered set) or a file. A file's column
            ``split`` names the parts; without it they are a function of the post.

    Raises:
        DataError: It cannot be read, or a part has no usable row.
    """
    return _gather(_records(source, PARTS), _summarised, str(source), once=True)


def read_comparisons(source: str | Path) -> dict[Part, Gathered[Compared]]:
    """Posts with two summaries and which of them somebody preferred; parts share no post.

    Args:
        source: ``openai/summarize_from_feedback``, ``trl-lib/tldr-preference`` or a file.
    """
    return _gather(_records(source, ("train", "validation")), _compared, str(source), once=False)


def post_key(post: Post) -> str:
    """Equal for equal posts: the words, whatever their case and spacing."""
    return " ".join(post.post.casefold().split())


def _head(post: Post) -> str:
    return _HEAD.format(subreddit=post.subreddit, title=post.title)


def _cut(
    text: str, longest: int, fullest: float
) -> tuple[Literal["newline", "sentence", "word", "character"], str]:
    """The beginning of ``text`` of at most ``longest`` characters, and what it was cut at."""
    longest = max(longest, 0)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, longest + 1)]
    newline, sentence = text.rfind("\n", 0, longest + 1), ends[-1] if ends else -1
    word = max(text.rfind(" ", 0, longest + 1), newline)
    least = max(fullest * longest, 1)
    if newline >= least:
        return "newline", text[:newline].rstrip()
    if sentence >= least:
        return "sentence", text[:sentence]
    if word >= 1:
        return "word", text[:word].rstrip()
    return "character", text[:longest]


def _records(source: str | Path, hub_parts: Sequence[Part]) -> dict[Part, list[Record]]:
    if data_files(source) is None:
        name = str(source)
        config = "comparisons" if name == OPENAI_COMPARISONS else None
        return {part: read_hub(name, part, config=config) for part in hub_parts}
    records: dict[Part, list[Record]] = {part: [] for part in PARTS}
    for record in read_records(source):
        records[_part(record)].append(record)
    return {part: found for part, found in records.items() if found}


def _part(record: Record) -> Part:
    fields = record.fields or {}
    name = fields.get("split")
    if name is None:
        share = unit_hash(str(fields.get("post", fields.get("prompt"))), _PART)
        return PARTS[2 if share < HELD_OUT else 1 if share < 2 * HELD_OUT else 0]
    if name not in _PART_OF:
        raise DataError(
            f"{record.where}: unknown split {name!r}. Name it {', '.join(_PART_OF)}, or leave the "
            "column out."
        )
    return _PART_OF[name]


def _gather(
    records: Mapping[Part, Sequence[Record]],
    parse: Callable[[Record], P],
    source: str,
    *,
    once: bool,
) -> dict[Part, Gathered[P]]:
    """The rows of each part; a post in two parts stays in the held-out one."""
    part_of: dict[str, Part] = {}
    seen: set[str] = set()
    gathered: dict[Part, Gathered[P]] = {}
    for part in [part for part in reversed(PARTS) if part in records]:
        refusals = RowReport(f"{source} ({part})", seen=len(records[part]))
        keyed: list[tuple[str, P]] = []
        for record in records[part]:
            try:
                row = parse(record)
                key = post_key(row)
                before = part_of.setdefault(key, part)
                if before != part:
                    raise Refused(f"post is also in the {before} part")
                if once and key in seen:
                    raise Refused("post occurs twice")
                seen.add(key)
                keyed.append((key, row))
            except Refused as problem:
                refusals.add(record.where, problem)
        refusals.require_rows(len(keyed))
        keyed.sort(key=lambda pair: unit_hash(pair[0], _ORDER))
        gathered[part] = Gathered([row for _, row in keyed], refusals)
    return {part: gathered[part] for part in PARTS if part in gathered}


def _summarised(record: Record) -> Summarised:
    fields = _fields(record)
    post = _post(record, fields)
    summary = _text(fields, "summary" if "summary" in fields else "completion")
    row = Summarised(post.id, post.subreddit, post.title, post.post, summary)
    Demonstration(row.id, prompt_of(row), summary).check()
    return row


def _compared(record: Record) -> Compared:
    fields = _fields(record)
    if fields.get("tie"):
        raise Refused("a tie")
    if "summaries" in fields:
        info = fields.get("info") or {}
        if info.get("post") is None:
            raise Refused("about a news article, not a post")
        choice = fields.get("choice")
        if choice not in (0, 1):
            raise Refused("wrong type in 'choice'", f": wants 0 or 1, got {choice!r}")
        texts = [_text(fields["summaries"][k], "text") for k in (choice, 1 - choice)]
        fields = {**info, "id": f"{info.get('id')}/{record.where}"}
    else:
        texts = [_text(fields, name) for name in ("chosen", "rejected")]
    post = _post(record, fields)
    row = Compared(post.id, post.subreddit, post.title, post.post, *texts)
    PreferencePair(row.id, prompt_of(row), row.chosen, row.rejected).check()
    return row


def _fields(record: Record) -> Fields:
    if record.fields is None:
        raise Refused("not readable as a row", f" ({record.problem})")
    return record.fields


def _post(record: Record, fields: Fields) -> Post:
    own = fields.get("id")
    name = record.where if own is None else str(own)
    if "post" not in fields:
        whole = _PROMPT.fullmatch(_text(fields, "prompt"))
        if whole is None:
            raise Refused("prompt is not written as a TL;DR prompt")
        fields = whole.groupdict()
    subreddit, title, post = (_text(fields, key) for key in ("subreddit", "title", "post"))
    if not title:
        raise Refused("no title")
    if not post:
        raise Refused("empty post")
    return Post(name, subreddit, " ".join(title.split()), post)


def _text(fields: Fields, name: str) -> str:
    """A text without white space around it; of a conversation, what was said last."""
    value = fields.get(name)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        value = value[-1].get("content")
    if value is None:
        raise Refused(f"missing column {name!r}")
    if not isinstance(value, str):
        raise Refused(f"wrong type in {name!r}", f": wants a string, got {type(value).__name__}")
    return value.strip()
