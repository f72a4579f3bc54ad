"""Make prompt trees of whole texts: blocks for language modelling, or one labelled text each."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal

from alignlab.data.encode import AT_ONCE, Encoder, without_specials
from alignlab.data.rows import LabelledText, Refused, RowReport
from alignlab.data.tree import PromptTree
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LabelledTruncation = Literal["drop", "keep_start", "keep_end", "blocks"]


def tokenise_texts(
    rows: Sequence[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int,
    first_index: int = 0,
) -> list[PromptTree]:
    """Language-modelling trees: every text whole, in blocks of at most ``max_length`` tokens.

    A block is a tree with the beginning-of-text token as its prompt (the end-of-text token where
    the tokenizer has no other). Only the last block of a text ends in the end-of-text token.
    """
    trees = iter_texts(rows, tokenizer, report, max_length=max_length, first_index=first_index)
    return list(trees)


def iter_texts(
    rows: Iterable[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int,
    first_index: int = 0,
) -> Iterator[PromptTree]:
    """Yield what ``tokenise_texts`` makes of rows."""
    report.begin()
    texts = _without_labels(rows, report)
    for place, row, start, body in _bodies(texts, tokenizer, report, max_length):
        blocks = _blocks(body, max_length - 1)
        report.ended += 1
        for k, block in enumerate(blocks):
            name = row.id if len(blocks) == 1 else f"{row.id}#{k}"
            index = first_index + report.trees
            report.made((block,))
            yield PromptTree(index, name, (start,), (block,), row=place, source="")
    report.require_rows(report.trees)


def _without_labels(rows: Iterable[LabelledText], report: RowReport) -> Iterator[LabelledText]:
    """The rows; labels among them are counted as a column that nothing reads."""
    labels = 0
    for row in rows:
        labels += row.label is not None
        yield row
    if labels:
        report.unused["label"] = labels


def tokenise_labelled(
    rows: Sequence[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int,
    truncation: LabelledTruncation = "blocks",
    first_index: int = 0,
) -> list[PromptTree]:
    """Trees of labelled texts: the text is the completion of an empty prompt.

    Args:
        rows: Texts, each with a label.
        tokenizer: A fast tokenizer.
        report: Where trees are counted and refused rows are recorded, as by reading.
        max_length: Bound on every branch.
        truncation: What happens to a longer text. ``blocks`` makes its consecutive pieces the
            completions of one tree, each with the text's label; ``drop`` refuses it;
            ``keep_start`` and ``keep_end`` keep the first or the last tokens.
        first_index: ``PromptTree.index`` of the first tree.
    """
    trees = iter_labelled(
        rows,
        tokenizer,
        report,
        max_length=max_length,
        truncation=truncation,
        first_index=first_index,
    )
    return list(trees)


def iter_labelled(
    rows: Iterable[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    *,
    max_length: int,
    truncation: LabelledTruncation = "blocks",
    first_index: int = 0,
) -> Iterator[PromptTree]:
    """Yield what ``tokenise_labelled`` makes of rows."""
    if truncation not in ("drop", "keep_start", "keep_end", "blocks"):
        raise ConfigError(
            f"truncation must be drop, keep_start, keep_end or blocks, got {truncation!r}."
        )
    report.begin()
    for place, row, start, body in _bodies(rows, tokenizer, report, max_length):
        try:
            if row.label is None:
                raise Refused("missing column 'label'")
            pieces = _pieces(body, max_length - 1, truncation)
        except Refused as problem:
            report.add(row.id, problem)
            continue
        labels = (row.label,) * len(pieces)
        index = first_index + report.trees
        cut = sum(map(len, pieces)) < len(body)
        report.truncated += cut
        report.ended += not cut or truncation == "keep_end"
        report.made(pieces)
        yield PromptTree(index, row.id, (start,), pieces, labels=labels, row=place, source="")
    report.require_rows(report.trees)


def _bodies(
    rows: Iterable[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    report: RowReport,
    max_length: int,
) -> Iterator[tuple[int, LabelledText, int, tuple[int, ...]]]:
    """Each text with its place, its start token and its ids, end-of-text token included."""
    if max_length < 3:
        raise ConfigError(f"max_length must be at least 3 for texts, got {max_length}.")
    encode = Encoder(tokenizer)
    places = enumerate(rows)
    while chunk := list(islice(places, AT_ONCE)):
        coded = encode([row.text for _, row in chunk])
        for (place, row), code in zip(chunk, coded, strict=True):
            front = int(encode.bos is not None)
            try:
                ids = without_specials(encode, code.ids, front, ends=True)
                if len(ids) == front:
                    raise Refused("text has no token")
            except Refused as problem:
                report.add(row.id, problem)
                continue
            yield place, row, encode.start, (*ids[front:], encode.eos)


def _pieces(
    body: tuple[int, ...], room: int, truncation: LabelledTruncation
) -> tuple[tuple[int, ...], ...]:
    if truncation == "blocks":
        return _blocks(body, room)
    if truncation == "keep_end":
        return (body[-room:],)
    if truncation == "keep_start" or len(body) <= room:
        return (body[:room],)
    raise Refused("longer than max_length", f": {len(body) + 1} > {room + 1} tokens")


def _blocks(body: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    """Cut into pieces of at most ``size`` tokens; no piece is a lone end-of-text token."""
    cuts = [*range(0, len(body), size), len(body)]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1:
        # A block of only the end-of-text token would teach the model that texts are empty.
        cuts[-2] -= 1
    return tuple(body[a:b] for a, b in pairwise(cuts))
