"""From rows to prompt trees: the joint text is tokenised once and cut where its prompt ends.

Tokenising prompt and completion apart gives ids that the joint text never has when a token merges
across the border. So the joint text is tokenised once; the prompt is the tokens that end at or
before the border in *every* completion of the tree, and a token that straddles it belongs to the
completions. Then prompt ids + completion ids are exactly the ids of the joint text.

The beginning-of-text token (if the tokenizer has one) comes first, exactly once. The end-of-text
token follows a complete completion, and is trained on; a completion that was cut does not get it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Literal, get_args

from alignlab.data.chat import (
    TODAY,
    Rendered,
    render,
    render_prompt,
    unread_fields,
    writes_the_date,
)
from alignlab.data.encode import AT_ONCE, Code, Encoder, without_specials
from alignlab.data.rows import Branch, Chat, Completable, Refused, RowReport
from alignlab.data.tree import PromptTree
from alignlab.errors import ConfigError
from alignlab.names import moved_from

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
else:
    __getattr__ = moved_from(__name__)

Truncation = Literal["drop", "keep_start", "keep_end"]


def tokenise(
    rows: Sequence[Completable],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int | None = None,
    truncation: Truncation = "drop",
    train_on_prompt: bool = False,
    first_index: int = 0,
) -> list[PromptTree]:
    """Prompt trees of rows, with the row's completions in the order of its ``branches``.

    If any row has labels, a row without them (a pair without a margin) gets zeros. ``report``
    counts the trees and the rows that are refused. ``max_length`` and ``truncation`` are those of
    ``TreeData``; ``keep_end`` keeps the beginning-of-text token, and a cut completion has no
    end-of-text token. With ``train_on_prompt`` the tree's prompt is the first token alone, which
    nothing predicts. ``first_index`` is the ``PromptTree.index`` of the first tree.

    Raises:
        ConfigError: The tokenizer lacks what the rows need, or an impossible setting.
        DataError: No row is left.
    """
    trees = iter_trees(
        rows,
        tokenizer,
        report,
        max_length=max_length,
        truncation=truncation,
        train_on_prompt=train_on_prompt,
        first_index=first_index,
    )
    return with_labels(list(trees), report)


def with_labels(trees: list[PromptTree], report: RowReport) -> list[PromptTree]:
    """The trees, with labels of 0 for rows without any if others have some."""
    if not report.labelled:
        return trees
    return [
        tree if tree.labels else replace(tree, labels=(0.0,) * len(tree.completions))
        for tree in trees
    ]


def iter_trees(
    rows: Iterable[Completable],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int | None = None,
    truncation: Truncation = "drop",
    train_on_prompt: bool = False,
    first_index: int = 0,
) -> Iterator[PromptTree]:
    """Yield what ``tokenise`` makes of rows, without the zeros of rows that have no labels.

    Raises:
        ConfigError: See ``tokenise``.
        DataError: See ``tokenise``.
    """
    if max_length is not None and max_length < 2:
        raise ConfigError(
            f"max_length must be at least 2 (a prompt and a completion token), got {max_length}."
        )
    if truncation not in get_args(Truncation):
        raise ConfigError(f"truncation must be drop, keep_start or keep_end, got {truncation!r}.")
    report.begin()
    seen, encode = _Seen(rows, report), Encoder(tokenizer)
    for row, place, texts, codes in _encoded(seen, encode, report):
        try:
            tree, straddles = _tree(encode, row, texts, codes)
            cut = max_length is not None and tree.longest > max_length
            if max_length is not None and cut:
                tree = _cut(tree, max_length, truncation, encode.bos)
            if train_on_prompt:
                tree = _with_prompt_trained(tree)
            _check(tree, own := row.labels)
        except Refused as problem:
            report.add(row.id, problem)
            continue
        changed = train_on_prompt or (isinstance(row.prompt, str) and (cut or straddles))
        source = None if changed else row.prompt
        index = first_index + report.trees
        report.truncated += cut
        report.straddling += straddles
        report.ended += sum(
            ids[-1] == encode.bare_eos and (tree.loss_masks is None or tree.loss_masks[k][-1])
            for k, ids in enumerate(tree.completions)
        )
        report.made(tree.completions)
        yield replace(tree, index=index, labels=own, row=place, source=source)
    if report.labelled and seen.bare:
        report.notes.append(f"{seen.bare:,} pairs without a margin get 0, because others have one")
    if writes_the_date(tokenizer) and seen.chats:
        report.notes.append(f"the chat template writes the date, always as {TODAY:%d %b %Y}")
    report.require_rows(report.trees)


class _Seen:
    """Rows, counted while they are gone through: those without labels, and conversations."""

    def __init__(self, rows: Iterable[Completable], report: RowReport) -> None:
        self.rows, self.report, self.bare, self.chats = rows, report, 0, 0

    def __iter__(self) -> Iterator[Completable]:
        for row in self.rows:
            labels = row.labels
            self.report.labelled += bool(labels)
            self.bare += labels is None
            self.chats += not isinstance(row.prompt, str)
            yield row


def _encoded(
    rows: Iterable[Completable], encode: Encoder, report: RowReport
) -> Iterator[tuple[Completable, int, list[Rendered], list[Code]]]:
    """Each row and its place with its joint texts, or its prompt's, and their token ids."""
    places = enumerate(rows)
    while chunk := list(islice(places, AT_ONCE)):
        ready = []
        for place, row in chunk:
            try:
                texts = [
                    render(encode.tokenizer, row.prompt, text, ends)
                    for _, text, ends in row.branches()
                ]
                if isinstance(row.prompt, tuple):
                    _count_unread(encode.tokenizer, row.prompt, row.branches(), report.unused)
                ready.append((row, place, texts or [render_prompt(encode.tokenizer, row.prompt)]))
            except Refused as problem:
                report.add(row.id, problem)
        codes = iter(encode([text.text for *_, texts in ready for text in texts]))
        for row, place, texts in ready:
            yield row, place, texts, [next(codes) for _ in texts]


def _tree(
    encode: Encoder, row: Completable, texts: list[Rendered], codes: list[Code]
) -> tuple[PromptTree, bool]:
    """Split joint texts into the shared prompt and the rest of each; report straddling tokens.

    Raises:
        Refused: A special token inside a text, or no token of the prompt or of a completion.
    """
    borders = [_border(encode, text, code) for text, code in zip(texts, codes, strict=True)]
    branches = list(zip(texts, codes, borders, strict=True))
    ids = [
        without_specials(encode, code.ids, at, text.ends) if text.spans is None else code.ids
        for text, code, at in branches
    ]
    prompt = _common_prefix([one[:at] for one, at in zip(ids, borders, strict=True)])
    if not prompt and texts[0].boundary:
        raise Refused("no prompt token left of the border")
    tree = PromptTree(0, row.id, tuple(prompt) or (encode.start,), ())
    if not row.branches():
        return tree, False
    across = [_straddles(encode, *branch) or branch[-1] > len(prompt) for branch in branches]
    completions, masks = [], []
    for (text, code, at), one in zip(branches, ids, strict=True):
        if len(one) == len(prompt):
            raise Refused("completion has no token")
        completions.append((*one[len(prompt) :], *[encode.eos] * text.ends))
        moved = at - len(prompt)  # tokens that another branch's border gave to completions
        mask = _mask(text, code.offsets[at : len(one)])
        masks.append((*[True] * moved, *mask, *[True] * text.ends))
    counted = None if all(map(all, masks)) else tuple(masks)
    return replace(tree, completions=tuple(completions), loss_masks=counted), any(across)


def _cut(tree: PromptTree, max_length: int, truncation: Truncation, bos: int | None) -> PromptTree:
    """The tree cut to ``max_length``.

    Raises:
        Refused: With ``drop``, or when no completion token would be left.
    """
    prompt = tree.prompt
    if truncation == "drop":
        raise Refused("longer than max_length", f": {tree.longest} > {max_length} tokens")
    if truncation == "keep_end":
        kept = int(prompt[0] == bos)
        prompt = prompt[:kept] + prompt[kept + min(tree.longest - max_length, len(prompt) - 1) :]
    room = max_length - len(prompt)
    if not tree.completions:
        prompt = prompt[:max_length]
    elif room < 1:
        raise Refused("no completion token left after truncation")
    completions = tuple(ids[:room] for ids in tree.completions)
    masks = tree.loss_masks and tuple(mask[:room] for mask in tree.loss_masks)
    return replace(tree, prompt=prompt, completions=completions, loss_masks=masks)


def _with_prompt_trained(tree: PromptTree) -> PromptTree:
    """The tree with all of its prompt but the first token moved to the completions, and trained."""
    completions = tuple(tree.prompt[1:] + ids for ids in tree.completions)
    return replace(tree, prompt=tree.prompt[:1], completions=completions, loss_masks=None)


def _check(tree: PromptTree, labels: tuple[float, ...] | None) -> None:
    """Refuse completions that are equal as tokens, or that have no token to train on."""
    completions = tree.completions
    if tree.loss_masks and not all(map(any, tree.loss_masks)):
        raise Refused("no trained token left after truncation")
    if len(completions) == 2 and completions[0] == completions[1]:
        raise Refused("chosen and rejected are identical as tokens")
    if labels and len(set(zip(completions, labels, strict=True))) > len(set(completions)):
        raise Refused("one completion, as tokens, has two ranks")


def _common_prefix(rows: list[list[int]]) -> list[int]:
    if all(row == rows[0] for row in rows):
        return rows[0]
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return [column[0] for column in columns]


def _border(encode: Encoder, text: Rendered, code: Code) -> int:
    """How many tokens end at or before the end of the prompt; a beginning-of-text token does."""
    ends = (k for k, (_, end) in enumerate(code.offsets) if end > text.boundary)
    border = next(ends, len(code.ids))
    return border if encode.bos is None else max(border, 1)


def _straddles(encode: Encoder, text: Rendered, code: Code, border: int) -> bool:
    """Whether a token contains, or its boundaries depend on, both prompt and completion.

    Offsets alone cannot tell: some tokenizers drop a trailing space, others leave the space of the
    next word out of its offsets, and GPT-2's pattern parts two newlines only where a word follows.
    The prompt by itself then has another tokenisation.
    """
    prompt = text.text[: text.boundary]
    covered = code.offsets[border - 1][1] if border else 0
    doubtful = covered < text.boundary or prompt[-1:].isspace()
    return doubtful and encode([prompt])[0].ids != code.ids[:border]


def _mask(text: Rendered, offsets: list[tuple[int, int]]) -> list[bool]:
    if text.spans is None:
        return [True] * len(offsets)
    # A span that starts at the completion keeps its first token, whatever that token's offsets.
    spans = [(-1 if start == text.boundary else start, end) for start, end in text.spans]
    return [any(first < end and at > start for start, end in spans) for first, at in offsets]


def _count_unread(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Chat,
    branches: Sequence[Branch],
    unread: dict[str, int],
) -> None:
    """Count what the template leaves out of a row's messages."""
    chats = [text for _, text, _ in branches if isinstance(text, tuple)] or [()]
    for name in sorted({name for chat in chats for name in unread_fields(tokenizer, prompt, chat)}):
        unread[f"{name} of a turn"] = unread.get(f"{name} of a turn", 0) + 1
