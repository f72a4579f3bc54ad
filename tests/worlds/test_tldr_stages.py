"""Files of posts, demonstrations and pairs, and the table of what became of every row."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab.data.rows import PreferencePair
from alignlab.data.sources import read_rows
from alignlab.errors import ConfigError, DataError
from alignlab.worlds.tldr_stages import (
    gather_posts,
    write_comparisons,
    write_negatives,
    write_prompts,
    write_summaries,
)
from tests.data.files import jsonl
from tests.data.tokens import bytewise


def table(folder: Path) -> list[tuple[str, str, str, int]]:
    with (folder / "rows.csv").open(newline="") as file:
        return [(r["part"], r["what"], r["reason"], int(r["rows"])) for r in csv.DictReader(file)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """One token a character, but for the merges " b" and "ab", which these posts do not hold."""
    bytewise(trim_offsets=False).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    """Forty posts to train on, four to validate and eight to test with; one to refuse."""
    rows = [
        {
            "id": f"t3_{k}",
            "subreddit": "tifu",
            "title": f"Tea {k}",
            "post": f"Hello there.\nThis is post {k}. " + "I drank it. " * (k % 5),
            "summary": f"I drank tea number {k} today",
            "split": "train" if k < 40 else "valid" if k < 44 else "test",
        }
        for k in range(52)
    ]
    rows.append(rows[0] | {"id": "no title", "title": " "})
    gather_posts(out=tmp_path / "posts", source=["missing.parquet", str(jsonl(tmp_path, rows))])
    return tmp_path / "posts" / "posts.parquet"


def test_gathered_posts(posts: Path, tmp_path: Path) -> None:
    assert table(posts.parent) == [
        ("train", "read", "", 41),
        ("train", "refused", "no title", 1),
        ("train", "kept", "", 40),
        ("validation", "read", "", 4),
        ("validation", "kept", "", 4),
        ("test", "read", "", 8),
        ("test", "kept", "", 8),
    ]
    gather_posts(out=tmp_path / "few", source=str(posts), limit=3)
    kept = [row[3] for row in table(tmp_path / "few") if row[1] == "kept"]
    assert kept == [3, 3, 3]


def test_posts_of_other_subreddits_are_in_no_part(posts: Path, tmp_path: Path) -> None:
    rows = pq.read_table(posts).to_pylist()
    for k, row in enumerate(rows):
        row["subreddit"] = "DnD" if k % 10 == 0 else "rpg" if k == 1 else "tifu"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mixed.parquet")
    source, out = str(tmp_path / "mixed.parquet"), tmp_path / "out"
    gather_posts(out=out, source=source, elsewhere=["dnd", "rpg"], limit=40)
    away = pq.read_table(out / "elsewhere.parquet").to_pylist()
    kept = pq.read_table(out / "posts.parquet").to_pylist()
    assert {row["subreddit"] for row in kept} == {"tifu"}
    assert {row["subreddit"] for row in away} == {"DnD", "rpg"}
    assert {row["split"] for row in away} == {"test"}
    assert len(kept) + len(away) == 52
    refused = [row[3] for row in table(out) if row[2] == "subreddit is kept for elsewhere.parquet"]
    assert sum(refused) == len(away)
    with pytest.raises(DataError, match=r"no post of chess\. Leave it out"):
        gather_posts(out=tmp_path / "none", source=source, elsewhere=["chess"])


def test_demonstrations_and_why_rows_are_missing(
    posts: Path, tokenizer: str, tmp_path: Path
) -> None:
    """A prompt without drinks has 40 + 29 + 8 = 77 characters, and each drink has 12."""
    out = tmp_path / "summaries"
    bounds = (len(" I drank tea number 1 today") + 1, 40)
    write_summaries(
        out=out, source=str(posts), tokenizer=tokenizer, max_prompt=100, summary_tokens=bounds
    )
    found = table(out)
    train = {(what, reason): n for part, what, reason, n in found if part == "train"}
    # Posts 0 to 9 have a summary one character shorter; of the others, 18 drink more than once.
    assert train == {
        ("read", ""): 40,
        ("refused", f"summary shorter than {bounds[0]} tokens"): 10,
        ("cut", "post cut at a sentence"): 18,
        ("kept", ""): 30,
    }
    demonstrations = lines(out / "train.jsonl")
    assert len(demonstrations) == 30
    for one in demonstrations:
        number = one["id"].removeprefix("t3_")
        assert one["prompt"].startswith(f"SUBREDDIT: r/tifu\n\nTITLE: Tea {number}\n\nPOST: Hello")
        assert one["prompt"].endswith("\n\nTL;DR:")
        assert len(one["prompt"]) <= 100
        assert one["completion"] == f" I drank tea number {number} today"
        assert one["ends"] is True
    assert [len(lines(out / f"{part}.jsonl")) for part in ("validation", "test")] == [4, 8]
    with pytest.raises(ConfigError, match=r"summary_tokens must be 1 <= 5 <= 4"):
        write_summaries(out=out, source=str(posts), tokenizer=tokenizer, summary_tokens=(5, 4))


def pairs_of(path: Path) -> list[PreferencePair]:
    return read_rows(path, PreferencePair)[0]


def test_pairs_of_true_and_worse_summaries(posts: Path, tokenizer: str, tmp_path: Path) -> None:
    write_summaries(
        out=tmp_path / "s", source=str(posts), tokenizer=tokenizer, summary_tokens=(1, 99)
    )
    train, test = str(tmp_path / "s" / "train.jsonl"), str(tmp_path / "s" / "test.jsonl")
    halves = []
    for half in ("a", "b"):
        write_negatives(out=tmp_path / half, source=train, half=half)
        halves.append(pairs_of(tmp_path / half / "pairs.jsonl"))
    prompts = [{pair.prompt for pair in half} for half in halves]
    assert not prompts[0] & prompts[1]
    assert [len(half) for half in halves] == [len(own) for own in prompts]  # one kind a post
    assert sum(map(len, halves)) == 40
    assert {pair.id.partition("/")[2] for pair in halves[0]} == {"other", "words", "generic"}

    write_negatives(out=tmp_path / "t", source=test, every_kind=True, sentences="held_out")
    assert table(tmp_path / "t") == [("pairs", "read", "", 8), ("pairs", "kept", "", 24)]
    for kind in ("other", "words", "generic"):
        own = pairs_of(tmp_path / "t" / f"{kind}.jsonl")
        assert [pair.id for pair in own] == [
            f"{one['id']}/{kind}" for one in lines(Path(test))
        ]  # fmt: skip
        for pair in own:
            chosen, rejected = str(pair.chosen), str(pair.rejected)
            assert pair.id.startswith(f"t3_{chosen.split()[4]}/")
            assert rejected.startswith(" ")
            assert rejected != chosen
            assert (sorted(rejected.split()) == sorted(chosen.split())) == (kind == "words")
            assert rejected.startswith(" I drank tea number") == (kind == "other")
    with pytest.raises(ConfigError, match=r"kinds must be of other, words, generic, got \['bad'\]"):
        write_negatives(out=tmp_path / "n", source=test, kinds=["bad"])  # type: ignore[list-item]


def test_short_summaries_cannot_be_shuffled_and_are_counted(tmp_path: Path) -> None:
    rows = [
        {"id": str(k), "prompt": f"p{k}", "completion": text}
        for k, text in enumerate([" too short", " these four are enough"])
    ]
    write_negatives(out=tmp_path / "n", source=str(jsonl(tmp_path, rows)), kinds=["words"])
    assert table(tmp_path / "n") == [
        ("pairs", "read", "", 2),
        ("pairs", "refused", "too few words to shuffle", 1),
        ("pairs", "kept", "", 1),
    ]


def test_comparisons(tmp_path: Path, tokenizer: str) -> None:
    rows = [
        {
            "subreddit": "tifu",
            "title": "T" * (60 if k == 3 else 3),
            "post": f"Post {k}. " + "More. " * 9,
            "chosen": "Good.",
            "rejected": "Poor.",
            "split": "valid1" if k == 2 else "train",
        }
        for k in range(5)
    ]
    source = str(jsonl(tmp_path, rows))
    out = tmp_path / "comparisons"
    write_comparisons(out=out, source=[source], tokenizer=tokenizer, max_prompt=70)
    assert table(out) == [
        ("train", "read", "", 4),
        ("train", "refused", "no room for the post", 1),
        ("train", "cut", "post cut at a sentence", 3),
        ("train", "kept", "", 3),
        ("validation", "read", "", 1),
        ("validation", "cut", "post cut at a sentence", 1),
        ("validation", "kept", "", 1),
    ]
    for file in ("pairs", "validation"):
        for pair in pairs_of(out / f"{file}.jsonl"):
            assert len(str(pair.prompt)) <= 70
            assert (pair.chosen, pair.rejected) == (" Good.", " Poor.")


def test_prompts_of_posts_that_no_judge_has_seen(
    posts: Path, tokenizer: str, tmp_path: Path
) -> None:
    """Prompts as in the test of demonstrations: those of 4 posts in 5 with a drink are cut."""
    summaries = tmp_path / "summaries"
    write_summaries(
        out=summaries, source=str(posts), tokenizer=tokenizer, max_prompt=100,
        summary_tokens=(1, 40),
    )  # fmt: skip
    judged = tmp_path / "judged"
    write_negatives(out=judged, source=str(summaries / "train.jsonl"), half="a")
    seen = {row["id"].partition("/")[0] for row in lines(judged / "pairs.jsonl")}
    assert 5 < len(seen) < 35
    out = tmp_path / "prompts"
    write_prompts(
        out=out, source=str(posts), tokenizer=tokenizer, max_prompt=85,
        unseen_by=[str(judged / "pairs.jsonl")], test=5,
    )  # fmt: skip
    train, test = lines(out / "train.jsonl"), lines(out / "test.jsonl")
    assert {row["id"] for row in train} == {f"t3_{k}" for k in range(40)} - seen
    assert ("train", "refused", "a judge was trained on it", len(seen)) in table(out)
    assert len(test) == 5
    for row in train + test:
        assert set(row) == {"id", "prompt"}
        assert len(row["prompt"]) <= 85
        assert row["prompt"].endswith("TL;DR:")
