import json
from pathlib import Path
from typing import Any

from alignlab.check_data.quarantine import write_quarantine
from alignlab.check_data.survey import Source


def test_rows_stand_in_quarantine_as_their_author_wrote_them(tmp_path: Path) -> None:
    """Refused ones by their reason, others by the reasons that are given."""
    rows: list[Any] = [
        {"question": "p", "answer": " a", "more": [1]},
        {"question": "p", "answer": " ", "id": "x"},
        {"question": "p", "answer": " b", "id": "y"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    source = Source(str(path), columns={"prompt": "question", "completion": "answer"})
    out = tmp_path / "quarantine.jsonl"
    assert write_quarantine(out, source, {"y": ["odd", "and even"]}) == 3
    lines = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert lines[:2] == [
        {"id": "rows.jsonl:2", "reasons": ["empty completion in 'completion'"], "row": rows[1]},
        {"id": "y", "reasons": ["odd", "and even"], "row": rows[2]},
    ]
    assert lines[2]["id"] == "rows.jsonl:4"
    assert lines[2]["row"] is None
    assert lines[2]["reasons"][0].startswith("not readable as a row (not JSON")


def test_a_clean_source_gives_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    assert write_quarantine(tmp_path / "q.jsonl", Source(str(path)), {}) == 0
    assert (tmp_path / "q.jsonl").read_bytes() == b""
