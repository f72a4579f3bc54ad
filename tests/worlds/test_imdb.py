from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab.data.rows import LabelledText
from alignlab.errors import ConfigError, DataError
from alignlab.worlds.imdb import clean, prefix_prompts, read_imdb
from tests.data.tokens import bytewise

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 train, 20 test, 10 unsupervised reviews; two train texts are in test, once broken up."""
    part = {"train": 40, "test": 20}
    rows = [
        {"text": f"{split} review<br /><br />number  {k}", "label": int(2 * k >= n), "split": split}
        for split, n in part.items()
        for k in range(n)
    ]
    rows[3]["text"] = "test review number 5"
    rows[8]["text"] = "test review<br />number 7"
    unsup = [{"text": f"other {k}", "label": -1, "split": "unsup"} for k in range(10)]
    unsup[4]["text"] = "test review number 5"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "imdb.parquet")
    pq.write_table(pa.Table.from_pylist(unsup), tmp_path / "imdb_unsup.parquet")
    return tmp_path


def test_clean() -> None:
    assert clean(" A<br /><br/>fine\n\tfilm <BR>. ") == "A fine film ."


@pytest.mark.parametrize("as_file", [True, False])
def test_texts_of_the_test_part_are_left_out_with_a_count(folder: Path, as_file: bool) -> None:
    source = folder / "imdb.parquet" if as_file else folder
    train, refused = read_imdb(source, "train")
    assert (len(train), refused.seen) == (38, 40)
    assert refused.by_reason == {
        "text is also in the test split": ["imdb.parquet:4", "imdb.parquet:9"]
    }
    test, refused = read_imdb(source, "test")
    assert (len(test), refused.count) == (20, 0)
    assert not {row.text for row in train} & {row.text for row in test}
    other, refused = read_imdb(source, "unsupervised")
    assert (len(other), refused.count) == (9, 1)
    assert {row.label for row in other} == {None}
    assert {row.label for row in train} == {0.0, 1.0}


def test_rows_are_clean_named_and_shuffled_by_text_alone(folder: Path) -> None:
    rows, _ = read_imdb(folder, "test")
    assert {row.text for row in rows} == {f"test review number {k}" for k in range(20)}
    by_id = {row.id: row.text for row in rows}
    assert by_id["imdb/test/41"] == "test review number 0"  # row 41 of the file
    assert len({row.label for row in rows[:10]}) == 2
    assert [row.id for row in rows] != [row.id for row in read_imdb(folder, "test", seed=1)[0]]
    assert rows[:5] == read_imdb(folder, "test", limit=5)[0]


def test_halves_are_disjoint_and_cover(folder: Path) -> None:
    halves = [read_imdb(folder, half=half)[0] for half in ("a", "b")]
    texts = [{row.text for row in half} for half in halves]
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == {row.text for row in read_imdb(folder)[0]}
    assert min(map(len, texts)) >= 10
    early = {row.text for row in read_imdb(folder)[0][:19]}
    assert early & texts[0]  # the order says nothing about the halves
    assert early & texts[1]
    with pytest.raises(ConfigError, match="half must be"):
        read_imdb(folder, half="c")  # type: ignore[arg-type]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imdb\.parquet: no such file"):
        read_imdb(tmp_path)


def reviews(n: int) -> list[LabelledText]:
    return [LabelledText(str(k), f"ab b a{k} film " + "abc " * 60) for k in range(n)]


def test_prompts_are_prefixes_of_two_to_eight_tokens() -> None:
    tokenizer, rows = bytewise(), reviews(700)
    prompts, refused = prefix_prompts(rows, tokenizer)
    assert refused.count == 0
    lengths = []
    for prompt, row in zip(prompts, rows, strict=True):
        assert isinstance(prompt.prompt, str)
        ids = tokenizer(row.text, add_special_tokens=False)["input_ids"]
        alone = tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"]
        assert row.text.startswith(prompt.prompt)
        assert ids[: len(alone)] == alone
        lengths.append(len(alone))
    counts = Counter(lengths)
    assert set(counts) == set(range(2, 9))
    assert min(counts.values()) > 65  # 100 expected of each; 3.8 standard deviations


def test_prefix_never_ends_inside_a_character() -> None:
    """Each é is two tokens, so a prefix of 7 would be one of 8 when tokenised alone."""
    tokenizer = bytewise()
    rows = [LabelledText(str(k), "é" * 250 + str(k)) for k in range(60)]
    prompts, _ = prefix_prompts(rows, tokenizer, longest=7)
    assert {len(tokenizer(str(prompt.prompt))["input_ids"]) for prompt in prompts} == {2, 4, 6}


def test_prompts_do_not_depend_on_the_other_rows() -> None:
    tokenizer, rows = bytewise(), reviews(30)
    whole, _ = prefix_prompts(rows, tokenizer)
    assert prefix_prompts(rows[10:], tokenizer)[0] == whole[10:]
    assert prefix_prompts(rows, tokenizer, limit=4)[0] == whole[:4]
    assert prefix_prompts(rows, tokenizer, seed=1)[0] != whole


def test_short_reviews_make_no_prompt() -> None:
    rows = [LabelledText("short", "a" * 200), LabelledText("long", "c" * 201)]
    prompts, refused = prefix_prompts(rows, bytewise())
    assert [prompt.id for prompt in prompts] == ["long"]
    assert refused.by_reason == {"not more than 200 characters": ["short"]}


def test_impossible_lengths() -> None:
    with pytest.raises(ConfigError, match="1 <= 3 <= 2"):
        prefix_prompts(reviews(1), bytewise(), shortest=3, longest=2)


def test_real_reviews_or_their_like(folder: Path) -> None:
    source = REAL if (REAL / "imdb.parquet").is_file() else folder
    train, refused = read_imdb(source, "train")
    assert list(refused.counts) == ["text is also in the test split"]
    assert refused.count == (108 if source == REAL else 2)
    assert len(train) == refused.seen - refused.count
    assert not any("<br" in row.text or "  " in row.text for row in train)
    assert abs(sum(row.label or 0.0 for row in train) / len(train) - 0.5) < 0.05
