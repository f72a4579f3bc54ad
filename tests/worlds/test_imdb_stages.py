import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from alignlab.errors import ConfigError, DataError
from alignlab.worlds.imdb_stages import (
    gather_reviews,
    make_up_reviews,
    train_tokenizer,
    write_openings,
    write_prompts,
)

SUBJECTS = ["This film", "My favourite actor", "The plot", "A story", "Their music", "That scene"]
VERBS = ["is", "was", "seemed", "becomes"]
ENDS = ["good", "bad", "dull", "superb", "odd", "long"]


def reviews(part: int) -> list[str]:
    """144 reviews, each with an opening of its own, all longer than 200 characters."""
    return [
        f"{s} {v} {e} number {part}, they say.<br /><br />" + "And so it goes on and on. " * 10
        for s in SUBJECTS
        for v in VERBS
        for e in ENDS
    ]


@pytest.fixture
def source(tmp_path: Path) -> str:
    texts = reviews(1) + reviews(2)
    table = {
        "text": texts,
        "label": [i % 2 for i in range(len(texts))],
        "split": ["train"] * 144 + ["test"] * 144,
    }
    pq.write_table(pa.table(table), tmp_path / "imdb.parquet")
    unsup = {"text": ["Short and complete.", *reviews(3)], "label": [-1] * 145}
    pq.write_table(pa.table({**unsup, "split": ["unsup"] * 145}), tmp_path / "imdb_unsup.parquet")
    return str(tmp_path / "imdb.parquet")


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def parts(folder: Path) -> list[tuple[str, int, str]]:
    """All rows as (split, label, text)."""
    found = [
        row
        for name in ("imdb", "imdb_unsup")
        for row in pq.read_table(folder / f"{name}.parquet").to_pylist()
    ]
    return [(row["split"], row["label"], row["text"]) for row in found]


def test_gathered_reviews_are_clean_and_read_the_same_again(source: str, tmp_path: Path) -> None:
    gather_reviews(out=tmp_path / "all", source=[str(tmp_path / "no.parquet"), source])
    found = parts(tmp_path / "all")
    assert len(found) == 144 + 144 + 145
    assert not any("<br" in text for _, _, text in found)
    assert {split for split, label, _ in found if label == -1} == {"unsup"}
    assert sum(label for split, label, _ in found if split == "test") == 72
    gather_reviews(out=tmp_path / "again", source=str(tmp_path / "all" / "imdb.parquet"))
    assert parts(tmp_path / "again") == found
    gather_reviews(out=tmp_path / "few", source=source, limit=5)
    assert [split for split, _, _ in parts(tmp_path / "few")] == [
        *["train"] * 5,
        *["test"] * 5,
        *["unsup"] * 5,
    ]


def test_made_up_reviews_have_the_columns_and_warts_of_the_real_ones(tmp_path: Path) -> None:
    make_up_reviews(out=tmp_path / "one", reviews=40)
    make_up_reviews(out=tmp_path / "two", reviews=40)
    found = parts(tmp_path / "one")
    assert found == parts(tmp_path / "two")
    assert len(found) == 120
    assert {(split, label) for split, label, _ in found} == {
        *(("train", 0), ("train", 1), ("test", 0), ("test", 1), ("unsup", -1))
    }
    assert all("<br /><br />" in text for _, _, text in found)


def test_openings_end_only_where_the_review_does(source: str, tmp_path: Path) -> None:
    write_openings(out=tmp_path / "o", source=source, max_characters=40, validation_limit=7)
    found = rows(tmp_path / "o" / "openings.jsonl")
    assert len(found) == 144 + 145
    assert {row["prompt"] for row in found} == {""}
    complete = [row["completion"] for row in found if row["ends"]]
    assert complete == ["Short and complete."]
    cut = next(row["completion"] for row in found if row["id"] == "imdb/train/1")
    # 40 characters of "This film is good number 1, they say. And so it ..." end within "And".
    assert cut == "This film is good number 1, they say."
    held_out = rows(tmp_path / "o" / "validation.jsonl")
    assert len(held_out) == 7
    assert all(row["id"].startswith("imdb/test/") for row in held_out)


def test_tokenizer_of_openings_codes_any_text_and_adds_nothing(source: str, tmp_path: Path) -> None:
    write_openings(out=tmp_path / "o", source=source)
    train_tokenizer(
        out=tmp_path / "tok", source=str(tmp_path / "o" / "openings.jsonl"), vocab_size=300
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(tokenizer) == 300
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    text = " And so it goes: naïve\n🎬"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())
    with pytest.raises(ConfigError, match="at least 259 tokens, got 258"):
        train_tokenizer(out=tmp_path, source=str(tmp_path / "o" / "openings.jsonl"), vocab_size=258)


def test_prompts_are_short_distinct_and_unseen_in_training(source: str, tmp_path: Path) -> None:
    write_openings(out=tmp_path / "o", source=source)
    train_tokenizer(
        out=tmp_path / "tok", source=str(tmp_path / "o" / "openings.jsonl"), vocab_size=400
    )
    write_prompts(
        out=tmp_path / "p", source=source, tokenizer=str(tmp_path / "tok"), train=60, test=20
    )
    train, test = (
        [row["prompt"] for row in rows(tmp_path / "p" / f"{name}.jsonl")]
        for name in ("train", "test")
    )
    assert (len(train), len(test)) == (60, 20)
    assert len({*train, *test}) == 80
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert {len(tokenizer(text)["input_ids"]) for text in train} <= set(range(2, 9))
    assert not (tmp_path / "p" / "validation.jsonl").exists()
    write_prompts(
        out=tmp_path / "v", source=source, tokenizer=str(tmp_path / "tok"), train=60, test=20,
        validation=30,
    )  # fmt: skip
    files = ("train", "test", "validation")
    found = [[row["prompt"] for row in rows(tmp_path / "v" / f"{f}.jsonl")] for f in files]
    assert found[1] == test  # the evaluation's stay the same
    assert len(found[2]) == 30
    assert len({text for own in found for text in own}) == 110
    with pytest.raises(DataError, match=r"distinct train prompts.*100000 wanted"):
        write_prompts(
            out=tmp_path / "q",
            source=source,
            tokenizer=str(tmp_path / "tok"),
            train=100_000,
            test=5,
        )


def test_a_tokenizer_that_is_not_there_is_named(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"folder for a tokenizer is empty: .*empty"):
        write_prompts(
            out=tmp_path / "p", source=source, tokenizer=str(tmp_path / "empty"), train=1, test=1
        )
