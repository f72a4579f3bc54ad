"""What says that something is done: hashes, done files, and writes that are whole or absent."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMP_SUFFIX = ".tmp"


def canonical(value: Any) -> str:
    """``value`` as JSON with sorted keys: equal content, equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def sha_of(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def fingerprint(path: Path) -> str:
    """sha256 of a file's bytes, or of a folder's file names and their sha256."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return sha_of({p.relative_to(path).as_posix(): fingerprint(p) for p in files})
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` is either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f"{path.name}.{os.getpid()}{TEMP_SUFFIX}")
    temp.write_text(text, encoding="utf-8")
    os.replace(temp, path)


def remove_leftovers(folder: Path) -> None:
    """Delete half-written temporary files that a killed process left under ``folder``."""
    for path in list(folder.rglob(f"*{TEMP_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; ``None`` if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` atomically, readable and in a fixed order."""
    write_text(path, json.dumps(content, sort_keys=True, indent=1) + "\n")


def recorded_runs(points: Path) -> dict[str, str]:
    """``run_id`` -> ``config_sha`` of every run whose rows stand in a ``points.csv``."""
    if not points.exists():
        return {}
    with points.open(newline="", encoding="utf-8") as file:
        return {row["run_id"]: row["config_sha"] for row in csv.DictReader(file)}
