"""Small data files, written the way their authors would."""

import json
from pathlib import Path

from alignlab.data.rows import Turn


def messages(*turns: Turn) -> list[dict[str, str]]:
    """A conversation as JSON holds it."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def jsonl(folder: Path, records: list, name: str = "rows.jsonl") -> Path:
    """Write one JSON value a line."""
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
