"""From rows to prompt trees: the joint text is tokenised once and cut where its prompt ends.

Tokenising prompt and completion apart gives ids that the joint text never has when a token merges
across the border. So the joint text is tokenised once; the prompt is the tokens that end at or
before the border in *every* completion of the tree, and a token that straddles it belongs to the
completions. Then prompt ids + completion ids are exactly the ids of the joint text.

The beginning-of-text token (if the tokenizer has one) comes first, exactly once. The end-of-text
token follows a complete completion, and is trained on; a completion that was cut does not get it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from alignlab.data.chat import Rendered, render, render_prompt, unread_fields
from alignlab.data.encode import AT_ONCE, Code, Encoder, chunks, without_specials
from alignlab.data.rows import Completable, Refusals, Refused
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Truncation = Literal["drop", "keep_start", "keep_end"]
REPORT_COLUMNS = ("what", "reason", "rows", "examples")


@dataclass(slots=True)
class TokenReport:
    """Counts of what rows became: trees, their completions and tokens, or refusals.

    Args:
        refusals: Rows left out by reading and by tokenising, by reason.
        trees: Trees made.
        completions: Completions in the trees.
        tokens: Completion tokens in the trees.
        truncated: Rows that were cut to ``max_length``.
        straddling: Rows whose prompt is tokenised differently without its completion: a token
            contains the end of the prompt and the start of the completion, or spaces merge.
        ended: Completions that end in a trained end-of-text token.
    """

    refusals: Refusals
    trees: int = 0
    completions: int = 0
    tokens: int = 0
    truncated: int = 0
    straddling: int = 0
    ended: int = 0

    def count(self, tree: PromptTree, *, truncated: bool, straddling: bool, ended: int) -> None:
        """Add one tree."""
        self.trees += 1
        self.completions += len(tree.completions)
        self.tokens += sum(map(len, tree.completions))
        self.truncated += truncated
        self.straddling += straddling
        self.ended += ended

    def summary(self) -> str:
        """A readable report: a line for the rows kept, and one for each reason for a loss."""
        read = self.refusals
        share = f"{self.ended / self.completions:.1%}" if self.completions else "none"
        lines = [
            f"{read.source}: {read.seen - read.count:,} of {read.seen:,} rows kept: "
            f"{self.trees:,} trees, {self.completions:,} completions, {self.tokens:,} tokens",
            *read.lines(),
            f"  {self.truncated:,} rows truncated; {self.straddling:,} with a token across the "
            f"border of prompt and completion; {share} of completions end in a trained EOS",
        ]
        return "\n".join(lines)

    def tell(self) -> None:
        """Print the report on standard error if any row was refused or cut."""
        if self.refusals.lines() or self.truncated:
            print(self.summary(), file=sys.stderr, flush=True)

    def table(self) -> list[dict[str, str | int]]:
        """The same as rows of ``what``, ``reason``, ``rows`` and ``examples``."""
        read = self.refusals
        found: list[tuple[str, str, int, str]] = [
            ("read", "", read.seen, ""),
            ("kept", "", read.seen - read.count, ""),
            ("truncated", "", self.truncated, ""),
            ("token across the border", "", self.straddling, ""),
            *(("refused", why, n, read.examples(why)) for why, n in read.counts.items()),
            *(("column not used", name, n, "") for name, n in read.unused.items()),
            *(("note", note, 0, "") for note in read.notes),
        ]
        return [dict(zip(REPORT_COLUMNS, row, strict=True)) for row in found]


def tokenise(
    rows: Sequence[Completable],
    tokenizer: "PreTrainedTokenizerBase",
    refusals: Refusals,
    *,
    max_length: int | None = None,
    truncation: Truncation = "drop",
    train_on_prompt: bool = False,
    first_index: int = 0,
) -> tuple[list[PromptTree], TokenReport]:
    """Prompt trees of rows, with the row's completions in the order of its ``branches``.

    If any row has labels, a row without them (a pair without a margin) gets zeros.

    Args:
        rows: Validated rows.
        tokenizer: A fast tokenizer; its chat template renders conversations.
        refusals: Where refused rows are recorded, as those refused by reading were.
        max_length: Maximum tokens of prompt + completion, special tokens included.
        truncation: What happens to a longer row. ``drop`` refuses it; ``keep_start`` cuts the
            completions' end; ``keep_end`` cuts the prompt's beginning (not its beginning-of-text
            token), then the completions' end. A cut completion has no end-of-text token.
        train_on_prompt: Train on every token of the row, including the prompt and all turns. The
            tree's prompt is then the first token alone, which nothing predicts.
        first_index: ``PromptTree.index`` of the first tree.

    Raises:
        ConfigError: The tokenizer lacks what the rows need, or an impossible setting.
        DataError: No row is left.
    """
    _check_settings(max_length, truncation)
    encode = Encoder(tokenizer)
    report = TokenReport(refusals)
    trees: list[PromptTree] = []
    labels = [row.labels for row in rows]
    labelled = any(labels)
    if labelled and (bare := labels.count(None)):
        refusals.notes.append(f"a margin of 0 for pairs that lack one, as others have: {bare:,}")
    for chunk in chunks(list(enumerate(rows)), AT_ONCE):
        ready = []
        for place, row in chunk:
            try:
                ready.append((place, row, _render(tokenizer, row, refusals.unused)))
            except Refused as problem:
                refusals.add(row.id, problem)
        codes = iter(encode([text.text for *_, texts in ready for text in texts]))
        for place, row, texts in ready:
            try:
                draft = _draft(encode, row, texts, [next(codes) for _ in texts])
                cut = draft.fit(max_length, truncation, encode.bos)
                if train_on_prompt:
                    draft.count_all()
                own = (labels[place] or (0.0,) * len(texts)) if labelled else None
                tree = draft.tree(first_index + len(trees), row.id, own)
            except Refused as problem:
                refusals.add(row.id, problem)
                continue
            changed = train_on_prompt or (isinstance(row.prompt, str) and (cut or draft.straddling))
            trees.append(replace(tree, row=place, source=None if changed else row.prompt))
            report.count(tree, truncated=cut, straddling=draft.straddling, ended=sum(draft.ends))
    refusals.require_rows(len(trees))
    return trees, report


@dataclass(frozen=True, slots=True)
class _Branch:
    """One joint text as ids, with the prompt's tokens counted and the trained ones marked."""

    ids: list[int]
    prompt: int
    mask: list[bool]  # over ids[prompt:]
    straddling: bool


@dataclass(slots=True)
class _Draft:
    """A tree in the making."""

    prompt: list[int]
    completions: list[list[int]]
    masks: list[list[bool]]
    ends: list[bool]
    straddling: bool

    def fit(self, max_length: int | None, truncation: Truncation, bos: int | None) -> bool:
        """Cut to ``max_length``; returns whether anything was cut."""
        longest = len(self.prompt) + max(map(len, self.completions), default=0)
        if max_length is None or longest <= max_length:
            return False
        if truncation == "drop":
            raise Refused("longer than max_length", f": {longest} > {max_length} tokens")
        if truncation == "keep_end":
            kept = 1 if bos is not None and self.prompt[0] == bos else 0
            cut = min(longest - max_length, len(self.prompt) - 1)
            self.prompt = self.prompt[:kept] + self.prompt[kept + cut :]
        room = max_length - len(self.prompt)
        if not self.completions:
            self.prompt = self.prompt[:max_length]
        elif room < 1:
            raise Refused("no completion token left after truncation")
        self.ends = [e and len(c) <= room for e, c in zip(self.ends, self.completions, strict=True)]
        self.completions = [completion[:room] for completion in self.completions]
        self.masks = [mask[:room] for mask in self.masks]
        return True

    def count_all(self) -> None:
        """Move the prompt, except for its first token, to the completions, and train on it all."""
        self.completions = [self.prompt[1:] + completion for completion in self.completions]
        self.masks = [[True] * len(completion) for completion in self.completions]
        self.prompt = self.prompt[:1]

    def tree(self, index: int, id: str, labels: tuple[float, ...] | None) -> PromptTree:
        """The finished tree.

        Raises:
            Refused: Two completions that should differ are the same tokens, or none of one counts.
        """
        completions = tuple(map(tuple, self.completions))
        if not all(map(any, self.masks)):
            raise Refused("no trained token left after truncation")
        if len(completions) == 2 and completions[0] == completions[1]:
            raise Refused("chosen and rejected are identical as tokens")
        if labels and len(set(zip(completions, labels, strict=True))) > len(set(completions)):
            raise Refused("one completion, as tokens, has two ranks")
        whole = all(map(all, self.masks))
        masks = None if whole else tuple(map(tuple, self.masks))
        return PromptTree(index, id, tuple(self.prompt), completions, masks, labels)


def _render(
    tokenizer: "PreTrainedTokenizerBase", row: Completable, unread: dict[str, int]
) -> list[Rendered]:
    """The row's joint texts, or its prompt's; counts what a template leaves out of messages."""
    branches = row.branches()
    texts = [render(tokenizer, row.prompt, text, ends) for _, text, ends in branches]
    if isinstance(row.prompt, tuple):
        chats = [text for _, text, _ in branches if isinstance(text, tuple)] or [()]
        names = {name for chat in chats for name in unread_fields(tokenizer, row.prompt, chat)}
        for name in sorted(names):
            unread[f"{name} of a turn"] = unread.get(f"{name} of a turn", 0) + 1
    return texts or [render_prompt(tokenizer, row.prompt)]


def _draft(encode: Encoder, row: Completable, texts: list[Rendered], codes: list[Code]) -> _Draft:
    branches = [_branch(encode, text, code) for text, code in zip(texts, codes, strict=True)]
    shared = _common_prefix([branch.ids[: branch.prompt] for branch in branches])
    prompt = branches[0].ids[:shared]
    if not prompt:
        if texts[0].boundary:
            raise Refused("no prompt token left of the border")
        prompt = [encode.start]
    if not row.branches():
        return _Draft(prompt, [], [], [], straddling=False)
    completions, masks = [], []
    for text, branch in zip(texts, branches, strict=True):
        tail = [encode.eos] * text.ends
        completion = branch.ids[shared:]
        if not completion:
            raise Refused("completion has no token")
        completions.append(completion + tail)
        moved = branch.prompt - shared  # tokens that another branch's border gave to completions
        masks.append([True] * moved + branch.mask + [True] * text.ends)
    straddling = any(branch.straddling or branch.prompt > shared for branch in branches)
    return _Draft(prompt, completions, masks, [text.ends for text in texts], straddling)


def _branch(encode: Encoder, text: Rendered, code: Code) -> _Branch:
    ids, offsets = code.ids, code.offsets
    prompt = 0
    while prompt < len(ids) and offsets[prompt][1] <= text.boundary:
        prompt += 1
    if encode.bos is not None:
        prompt = max(prompt, 1)
    if text.spans is None:
        ids = without_specials(encode, ids, prompt, text.ends)
    covered = offsets[prompt - 1][1] if prompt else 0
    doubtful = covered < text.boundary or text.text[: text.boundary][-1:].isspace()
    straddling = doubtful and _straddles(encode, text, ids[:prompt])
    return _Branch(ids, prompt, _mask(text, offsets[prompt : len(ids)]), straddling)


def _straddles(encode: Encoder, text: Rendered, prompt: list[int]) -> bool:
    """Whether the prompt's last characters went to a completion token, or depend on one.

    Offsets alone cannot tell: some tokenizers drop a trailing space, others leave the space of the
    next word out of its offsets, and GPT-2's pattern parts two newlines only where a word follows.
    The prompt by itself then has another tokenisation.
    """
    return encode([text.text[: text.boundary]])[0].ids != prompt


def _mask(text: Rendered, offsets: list[tuple[int, int]]) -> list[bool]:
    if text.spans is None:
        return [True] * len(offsets)
    # A stretch that starts with the completion does so whatever its first token's offsets say.
    spans = [(-1 if start == text.boundary else start, end) for start, end in text.spans]
    return [any(first < end and at > start for start, end in spans) for first, at in offsets]


def _common_prefix(rows: list[list[int]]) -> int:
    for k, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            return k
    return min(map(len, rows))


def _check_settings(max_length: int | None, truncation: str) -> None:
    if max_length is not None and max_length < 2:
        raise ConfigError(
            f"max_length must be at least 2 (a prompt and a completion token), got {max_length}."
        )
    if truncation not in ("drop", "keep_start", "keep_end"):
        raise ConfigError(f"truncation must be drop, keep_start or keep_end, got {truncation!r}.")
