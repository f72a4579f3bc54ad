"""Read evaluation prompts, the same way for probe and pool, and held-out pairs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.data.rows import PreferencePair, Prompt, RowReport
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import DataError


def load_prompts(
    source: str | Path, tokenizer: Any, *, limit: int | None = None, max_length: int | None = None
) -> tuple[PromptTree, ...]:
    """Prompt trees without completions, numbered in the order of the source.

    Rows that are left out are reported on standard error.

    Args:
        source: A file of prompts, or the hub id of a data set.
        tokenizer: The policy's.
        limit: How many to use, from the start.
        max_length: Tokens of a prompt; a longer one keeps its end.

    Raises:
        DataError: The source cannot be read or has no usable prompt.
    """
    rows, report = read_rows(source, Prompt, limit=limit)
    trees = tokenise(rows, tokenizer, report, max_length=max_length, truncation="keep_end")
    report.tell("evaluation prompts")
    return tuple(trees)


def load_pairs(
    source: str | Path,
    prompts: Sequence[PromptTree],
    tokenizer: Any,
    *,
    max_length: int | None = None,
    max_new_tokens: int,
) -> list[list[PromptTree]]:
    """The held-out pairs of each of ``prompts``: a tree of the preferred completion and the other.

    Refused rows, and the number of pairs of other prompts, are reported on standard error.

    Args:
        source: A file of preference pairs, or the hub id of a data set.
        prompts: P trees from ``load_prompts``.
        tokenizer: The policy's.
        max_length: That of the prompts. A pair that is longer than it and ``max_new_tokens``
            together loses the beginning of its prompt.
        max_new_tokens: Tokens of a completion of the evaluation.

    Raises:
        DataError: The source cannot be read, or a prompt has no pair in it.
    """
    rows, report = read_rows(source, PreferencePair)
    window = None if max_length is None else max_length + max_new_tokens
    trees = tokenise(rows, tokenizer, report, max_length=window, truncation="keep_end")
    report.tell("evaluation pairs")
    bare = [Prompt(rows[tree.row].id, rows[tree.row].prompt) for tree in trees]
    asked = tokenise(
        bare, tokenizer, RowReport(str(source)), max_length=max_length, truncation="keep_end"
    )
    found: dict[tuple[int, ...], list[PromptTree]] = {tree.prompt: [] for tree in prompts}
    for place, prompt in ((tree.row, tree.prompt) for tree in asked):
        if prompt in found:
            found[prompt].append(trees[place])
    if lacking := [tree.id for tree in prompts if not found[tree.prompt]]:
        raise DataError(
            f"{source}: {len(lacking):,} of {len(prompts):,} evaluation prompts have no pair, e.g. "
            f"{lacking[0]!r}. Give pairs of the prompts that are evaluated, or leave pairs out."
        )
    if others := len(trees) - sum(map(len, found.values())):
        print(f"{source}: pairs of other prompts, which are not read: {others:,}", file=sys.stderr)
    return [found[tree.prompt] for tree in prompts]
