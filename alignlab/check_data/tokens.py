"""Rows as tokens: how long they are, and which tokens are trained on.

Torch is not imported, unless a chat format is set.

Rows are tokenised by the functions that training calls, so the same rows are refused.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from alignlab.check_data.survey import Listening, Survey
from alignlab.data.blocks import iter_texts
from alignlab.data.rows import (
    Completable,
    JudgedCompletion,
    LabelledText,
    RatedCompletion,
    Row,
    RowReport,
    Text,
)
from alignlab.data.rows.split import text_key
from alignlab.data.tokenise import iter_trees
from alignlab.data.tree import PromptTree

# A tokenizer of one of these classes is defined by its tokenizer.json. Others have their own class,
# which only a module that imports torch can choose.
PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
EXAMPLES = 10  # rows that are shown
Piece = tuple[str, bool]  # a text, and whether it is trained on


@dataclass(frozen=True)
class Example:
    """A row to look at.

    Args:
        id: Its name.
        branches: For each completion its column and its text with the prompt, in pieces.
        label: How the row's one completion was judged or rated, if it was.
    """

    id: str
    branches: list[tuple[str, list[Piece]]]
    label: str = ""


@dataclass(frozen=True)
class Tokens:
    """What tokenising the sample of a survey found.

    Args:
        report: On the rows of the sample.
        refused: Why a row was refused, by its name.
        lengths: For each part of a row the tokens of each; ``trained`` are those under the loss.
        examples: Rows whose pieces are those of tokens.
        template: The chat template, in words.
    """

    report: RowReport
    refused: dict[str, str]
    lengths: dict[str, list[int]]
    examples: list[Example]
    template: str


def load(source: str, chat_format: str | None = None) -> Any:
    """The tokenizer that training would use; a ``chat_format`` is as in ``Policy``.

    Raises:
        ConfigError: There is none, or it has another chat template.
    """
    config = Path(source) / "tokenizer_config.json"
    if chat_format is None and config.is_file() and (Path(source) / "tokenizer.json").is_file():
        try:
            named = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
        except (ValueError, AttributeError):
            named = None  # the library says what is wrong with the file
        if named in PLAIN:
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(source)
    from alignlab.models.loading import load_tokenizer

    return load_tokenizer(source, chat_format)


def tokenised(found: Survey, tokenizer: Any) -> Tokens:
    """Tokenise the sample; nothing is cut or left out for its length.

    Raises:
        ConfigError: The tokenizer lacks what the rows need.
        DataError: No row of the sample can be used.
    """
    refused: dict[str, str] = {}
    report = Listening(
        f"{found.source.name}, tokenised",
        seen=len(found.sample),
        told=lambda name, problem: refused.update({name: str(problem)}),
    )
    trees = _trees(found.sample, tokenizer, report)
    lengths: dict[str, list[int]] = {}
    chosen = _drawn(trees)
    examples = []
    for tree in trees:
        columns = _columns(found.sample[tree.row])
        parts = {} if columns == ["text"] else {"prompt": [len(tree.prompt)]}
        for column, ids in zip(columns, tree.completions, strict=True):
            parts.setdefault(column, []).append(len(ids))
        if len(columns) and columns != ["text"]:
            parts["prompt + longest completion"] = [tree.longest]
        parts["trained"] = [sum(map(sum, _masks(tree)))]
        for name, counts in parts.items():
            lengths.setdefault(name, []).extend(counts)
        if tree.index in chosen:
            label = _label(found.sample[tree.row])
            examples.append(replace(_example(tree, columns, tokenizer), label=label))
    return Tokens(report, refused, lengths, examples, _template(tokenizer))


def _trees(rows: Sequence[Row], tokenizer: Any, report: RowReport) -> list[PromptTree]:
    if isinstance(rows[0], LabelledText):
        texts = cast("Sequence[LabelledText]", rows)
        return list(iter_texts(texts, tokenizer, report, max_length=sys.maxsize))
    return list(iter_trees(cast("Sequence[Completable]", rows), tokenizer, report))


def _template(tokenizer: Any) -> str:
    if tokenizer.chat_template is None:
        return "the tokenizer has no chat template"
    marks = "generation %}" in str(tokenizer.chat_template)
    how = "marks what the assistant writes" if marks else "does not mark what the assistant writes"
    return f"the chat template of the tokenizer {how}"


def _columns(row: Row) -> list[str]:
    if not isinstance(row, Completable):
        return ["text"]
    return [branch.column for branch in row.branches()]


def _masks(tree: PromptTree) -> Sequence[Sequence[bool]]:
    return tree.loss_masks or [[True] * len(ids) for ids in tree.completions]


def _drawn(rows: Sequence[Any]) -> set[int]:
    """Places drawn at random, the same at every call: a file may repeat with a period."""
    return set(random.Random(0).sample(range(len(rows)), min(EXAMPLES, len(rows))))


def _label(row: Row) -> str:
    if isinstance(row, JudgedCompletion):
        return row.label
    return f"rating {row.rating:g}" if isinstance(row, RatedCompletion) else ""


def _example(tree: PromptTree, columns: Sequence[str], tokenizer: Any) -> Example:
    branches = [
        (column, _pieces(tree, ids, mask, tokenizer))
        for column, ids, mask in zip(columns, tree.completions, _masks(tree), strict=True)
    ]
    prompt = [(tokenizer.decode(tree.prompt), False)]
    return Example(tree.id, branches or [("prompt", prompt)])


def _pieces(
    tree: PromptTree, ids: Sequence[int], mask: Sequence[bool], tokenizer: Any
) -> list[Piece]:
    """Prompt and completion, cut where trained tokens begin and end."""
    trained = [False] * len(tree.prompt) + list(mask)
    whole = [*tree.prompt, *ids]
    cuts = [k for k in range(1, len(whole)) if trained[k] != trained[k - 1]]
    pieces, before = [], ""
    for end in [*cuts, len(whole)]:
        # A token's text may depend on those before it, such as the space that words begin with.
        text = tokenizer.decode(whole[:end], clean_up_tokenization_spaces=False)
        pieces.append((text[len(before) :], trained[end - 1]))
        before = text
    return pieces


def plain_examples(rows: Sequence[Row]) -> list[Example]:
    """Rows without a tokenizer: which texts are trained on, with the speakers' names."""
    chosen = _drawn(rows)
    return [_plain(row) for place, row in enumerate(rows) if place in chosen]


def _plain(row: Row) -> Example:
    if not isinstance(row, Completable):
        return Example(row.id, [("text", [(text_key(row.shared), True)])])
    prompt = list(chain.from_iterable(_said(row.prompt, prompt=True)))
    branches = [
        (branch.column, [*prompt, *chain.from_iterable(_said(branch.text, prompt=False))])
        for branch in row.branches()
    ]
    return Example(row.id, branches or [("prompt", prompt)], _label(row))


def _said(text: Text, *, prompt: bool) -> list[list[Piece]]:
    """A text, or the turns of a conversation, each after the name of its speaker."""
    if isinstance(text, str):
        return [[(text, not prompt)]]
    return [
        [
            (f"{turn.role}: ", False),
            (turn.content, not prompt and turn.role == "assistant"),
            *([(f" {turn.extra}", not prompt and turn.role == "assistant")] if turn.extra else []),
            ("\n", False),
        ]
        for turn in text
    ]
