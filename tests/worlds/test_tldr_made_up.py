"""Smoke runs meet the columns and the warts of the real sets."""

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from alignlab.worlds.tldr_made_up import make_up_comparisons, make_up_posts
from tests.data.tokens import bytewise


def refused(folder: Path) -> set[str]:
    with (folder / "rows.csv").open(newline="") as file:
        return {row["reason"] for row in csv.DictReader(file) if row["what"] == "refused"}


@pytest.mark.parametrize(
    ("columns", "names", "reasons"),
    [
        (
            "fields",
            ["id", "subreddit", "title", "post", "summary", "split"],
            {"no title", "empty completion", "post is also in the test part"},
        ),
        (
            "prompt",
            ["prompt", "completion", "split"],
            {"no title", "empty completion", "post is also in the test part"},
        ),
    ],
)
def test_posts(tmp_path: Path, columns: Any, names: list[str], reasons: set[str]) -> None:
    make_up_posts(out=tmp_path, posts=60, columns=columns)
    assert pq.read_table(tmp_path / "made_up.parquet").column_names == names
    assert refused(tmp_path) == reasons
    found = pq.read_table(tmp_path / "posts.parquet").to_pylist()
    assert len(found) == 61 - 3
    assert {row["split"] for row in found} == {"train", "validation", "test"}
    make_up_posts(out=tmp_path / "again", posts=60, columns=columns)
    assert pq.read_table(tmp_path / "again" / "posts.parquet").to_pylist() == found


def test_comparisons(tmp_path: Path) -> None:
    bytewise().save_pretrained(tmp_path / "tokenizer")
    make_up_comparisons(out=tmp_path, tokenizer=str(tmp_path / "tokenizer"), max_prompt=200)
    columns = pq.read_table(tmp_path / "made_up.parquet").column_names
    assert columns == ["info", "summaries", "choice", "worker", "batch", "split", "extra"]
    assert refused(tmp_path) == {"about a news article, not a post"}
    counts = [
        len((tmp_path / f"{file}.jsonl").read_text().splitlines())
        for file in ("pairs", "validation")
    ]
    assert counts == [44, 15]
