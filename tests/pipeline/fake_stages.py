"""Stages of the fake experiment: tiny functions that a worker imports instead of torch models."""

import time
from pathlib import Path


def write_words(out: Path, words: list[str], seconds: float = 0.0) -> None:
    """A file of words, written after some time."""
    time.sleep(seconds)
    (out / "words.txt").write_text("\n".join(words))
