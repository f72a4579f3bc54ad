"""Splits of rows: all rows of one prompt fall on the same side."""

import hashlib
from collections.abc import Sequence

from alignlab.data.rows.base import R, Row
from alignlab.data.rows.values import Text
from alignlab.errors import ConfigError


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
        parts[is_held_out(row, share, seed)].append(row)
    return parts


def is_held_out(row: Row, share: float, seed: int) -> bool:
    """On which side of ``split_by_prompt`` a row falls."""
    return unit_hash(prompt_key(row), seed) < share


def prompt_key(row: Row) -> str:
    """The text that says whether two rows belong to one prompt."""
    return text_key(row.shared)


def text_key(text: Text) -> str:
    """The string that says whether two texts are the same."""
    if isinstance(text, str):
        return text
    return repr([(turn.role, turn.content, turn.extra)[: 2 + bool(turn.extra)] for turn in text])


def short_hash(text: str) -> int:
    """A number of 64 bits for a text, to tell texts apart that are too many to be kept."""
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


def unit_hash(text: str, seed: int) -> float:
    """A number in [0, 1) that is a pure function of (text, seed)."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
