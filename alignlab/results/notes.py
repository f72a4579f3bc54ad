"""``notes.json`` of a results folder: what people wrote about its runs.

It stands beside the tables and is part of no hash: a note makes no run stale, and a run that is
made again keeps its notes. It is plain JSON, so that a note can be changed or deleted by hand.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError, DataError
from alignlab.files import alone, atomic_write

NOTES = "notes.json"
TAG = re.compile(r"\w[\w.:-]{0,39}")


@dataclass(frozen=True, slots=True)
class Note:
    """A remark about a run.

    Args:
        text: The remark.
        when: The day, such as ``2026-11-28``.
        config_sha: That of the run at that time; empty where it is not known.
    """

    text: str
    when: str
    config_sha: str


@dataclass(frozen=True, slots=True)
class Remarks:
    """All that was written about a run."""

    notes: Sequence[Note] = ()
    tags: Sequence[str] = ()

    def __str__(self) -> str:
        """Tags and texts in a line, for tables."""
        return "; ".join([*(f"#{tag}" for tag in self.tags), *(note.text for note in self.notes)])


def read_remarks(results: Path) -> dict[str, Remarks]:
    """Run -> what was written about it.

    Raises:
        DataError: The file is not what ``add_remark`` writes.
    """
    path = results / NOTES
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {run: _remarks(own) for run, own in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f'{path}: expected {{RUN: {{"notes": [{{"text", "when", "config_sha"}}], "tags": []}}}}'
            f" as JSON ({type(error).__name__}: {error}). Mend it, or move it away."
        ) from None


def _remarks(entry: Mapping[str, Any]) -> Remarks:
    notes, tags = [Note(**note) for note in entry["notes"]], list(entry["tags"])
    texts = [*tags, *(text for note in notes for text in (note.text, note.when, note.config_sha))]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a note and a tag are text")
    return Remarks(notes, tags)


def add_remark(results: Path, run_id: str, note: Note | None, tags: Sequence[str]) -> Remarks:
    """Add a note, tags, or both to a run; returns all that is now written about it.

    Raises:
        ConfigError: A tag that is not one word.
        DataError: As ``read_remarks``.
    """
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ConfigError(
                f"--tag {tag!r}: a tag is one word of letters, digits and _ . : -, up to 40 signs."
            )
    with alone(results / ".notes.lock"):
        remarks = read_remarks(results)
        old = remarks.get(run_id, Remarks())
        new = Remarks([*old.notes, *([note] if note else [])], [*dict.fromkeys([*old.tags, *tags])])
        content = {run: asdict(own) for run, own in sorted((remarks | {run_id: new}).items())}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        atomic_write(results / NOTES, text.encode())
    return new
