"""The prompts of the evaluation: one way to read them, so that probe and pool see the same."""

from pathlib import Path
from typing import Any

from alignlab.data.rows import Prompt
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree


def load_prompts(
    source: str | Path, tokenizer: Any, *, limit: int | None = None, max_length: int | None = None
) -> tuple[PromptTree, ...]:
    """Prompt trees without completions, numbered in the order of the source.

    What is left out is said on standard error.

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
    report.tell()
    return tuple(trees)
