"""Pools of samples for tests."""

import json
from pathlib import Path


def write_pool(path: Path, of: dict[str, dict[str, float]]) -> str:
    """A file of candidates: prompt -> completion -> rating."""
    rows = [
        {"prompt": prompt, "completions": list(rated), "ratings": list(rated.values())}
        for prompt, rated in of.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
