from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab.data import sources
from alignlab.data.rows import (
    Demonstration,
    LabelledText,
    PreferencePair,
    Prompt,
    Turn,
)
from alignlab.data.sources import first_available, read_rows, write_rows
from alignlab.errors import ConfigError, DataError
from tests.data.files import jsonl

USER, YES, NO = Turn("user", "hi"), Turn("assistant", "yes"), Turn("assistant", "no")


# ---------------------------------------------------------------- files

PLAIN = [
    {"prompt": "a", "chosen": " b", "rejected": " c", "margin": 0.5, "rejected_ends": False},
    {"prompt": "d", "chosen": " e", "rejected": " f", "margin": 1.0, "rejected_ends": True},
]
PLAIN_ROWS = [
    PreferencePair("rows:1", "a", " b", " c", rejected_ends=False, margin=0.5),
    PreferencePair("rows:2", "d", " e", " f", margin=1.0),
]


def without_ids(rows: list[PreferencePair]) -> list[tuple]:
    return [(r.prompt, r.chosen, r.rejected, r.rejected_ends, r.margin) for r in rows]


def test_the_same_rows_from_jsonl_csv_and_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(PLAIN), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text(
        "prompt,chosen,rejected,margin,rejected_ends\na, b, c,0.5,False\nd, e, f,1,true\n"
    )
    jsonl(tmp_path, PLAIN)
    for suffix, first in ((".jsonl", 1), (".csv", 2), (".parquet", 1)):
        rows, refusals = read_rows(tmp_path / f"rows{suffix}", PreferencePair)
        assert without_ids(rows) == without_ids(PLAIN_ROWS)
        assert rows[0].id == f"rows{suffix}:{first}"
        assert (refusals.seen, refusals.count) == (2, 0)


@pytest.mark.parametrize(
    "rows",
    [
        [Prompt("p1", "a "), Prompt("p2", "ü\n")],
        [Demonstration("d", "a", " b", ends=False), Demonstration("e", "", "c")],
        [Demonstration("d", (USER,), (YES, USER, NO))],
        [PreferencePair("x", "a", "b", "c", margin=2.0), PreferencePair("y", "a", "b", "d")],
        [PreferencePair("x", (USER,), (YES,), (NO,))],
        [LabelledText("t", "a", 1.0), LabelledText("u", "b")],
    ],
)
def test_written_rows_read_back_the_same(tmp_path: Path, rows: list) -> None:
    write_rows(tmp_path / "new" / "rows.jsonl", rows)
    assert read_rows(tmp_path / "new" / "rows.jsonl", type(rows[0]))[0] == rows


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [Prompt("old", "a")])

    def broken():
        yield Prompt("new", "b")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_rows(path, broken())
    assert [row.id for row in read_rows(path, Prompt)[0]] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, "no such file"),
        ("gone/rows/x", None, "no such file"),
        ("./rows", None, "no such file"),
        ("empty.jsonl", b"", r"the file is empty \(0 bytes\)"),
        ("empty.parquet", b"", r"the file is empty \(0 bytes\)"),
        ("blank.jsonl", b"\n \n", "holds no rows"),
        ("header.csv", b"prompt,chosen,rejected\n", "holds no rows"),
        ("rows.txt", b"a", "cannot tell its format from the suffix '.txt'"),
        ("binary.jsonl", b"\x93\xfa\x00\xff", "not a text file"),
        ("binary.csv", b"\x93\xfa\x00\xff", "not a text file"),
        ("nul.csv", b'prompt\na\x00b\n"', "nul.csv:3: not CSV"),
        ("garbage.parquet", b"PAR1 garbage", "not a Parquet file"),
        ("garbage.jsonl", b"not json\n[1]\n", "none of its 2 rows can be used: not readable"),
    ],
)
def test_unreadable_files_say_what_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "read_hub", lambda *_: pytest.fail("asked the hub"))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_rows(name, PreferencePair)


def test_missing_column_lists_what_was_found_and_what_would_do(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"question": "a", "chosen": "b"}])
    with pytest.raises(DataError) as caught:
        read_rows(path, PreferencePair)
    said = str(caught.value)
    assert said.startswith(f"{path}: missing column rejected; a PreferencePair needs ")
    assert "prompt + chosen + rejected or chosen + rejected" in said
    assert "Columns found: chosen, question." in said


def test_columns_maps_names(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"post": "a", "summary": "b", "prompt": "other"}])
    rows, _ = read_rows(path, Demonstration, columns={"prompt": "post", "completion": "summary"})
    assert (rows[0].prompt, rows[0].completion) == ("a", "b")
    with pytest.raises(DataError, match=r"missing column sumary \(columns: \{completion: sumary\}"):
        read_rows(path, Demonstration, columns={"completion": "sumary"})


def test_a_mistyped_name_in_columns_is_an_error(tmp_path: Path) -> None:
    """``prmpt`` would have been ignored, and the prompts of another column been used."""
    path = jsonl(tmp_path, [{"question": "a", "prompt": "b", "completion": "c"}])
    with pytest.raises(ConfigError, match="the name prmpt, which no Demonstration") as caught:
        read_rows(path, Demonstration, columns={"prmpt": "question"})
    assert "It reads completion, ends, id, prompt." in str(caught.value)
    rows, refusals = read_rows(path, Demonstration, columns={"prompt": "question"})
    assert rows[0].prompt == "a"
    assert refusals.notes == ["columns gives other columns the names of prompt"]


def test_columns_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "system": "be kind", "score": 3, "tags": [], "id": 1},
        {"prompt": "a", "completion": "c", "system": None, "score": 4, "split": "train"},
    ]
    _, refusals = read_rows(jsonl(tmp_path, rows), Demonstration)
    assert refusals.unused == {"score": 2, "split": 1, "system": 1}
    assert "  columns that nothing reads: score, split, system" in refusals.lines()
    _, refusals = read_rows(jsonl(tmp_path, rows), Demonstration, split="train")
    assert refusals.unused == {"score": 1}


def test_renamed_columns_are_read(tmp_path: Path) -> None:
    """Under the names that the file has; Alpaca's and ShareGPT's may be given, too."""
    row = {"question": "a", "answer": "b", "score": 3}
    columns = {"prompt": "question", "completion": "answer"}
    _, report = read_rows(jsonl(tmp_path, [row]), Demonstration, columns=columns)
    assert report.unused == {"score": 1}
    row = {"instruction": "a", "context": "b", "response": "c", "category": "d"}
    columns = {"input": "context", "output": "response"}
    (made,), report = read_rows(jsonl(tmp_path, [row]), Demonstration, columns=columns)
    assert report.unused == {"category": 1}
    assert "### Input:\nb\n" in str(made.prompt)
    with pytest.raises(ConfigError, match="the name rating, which no Demonstration"):
        read_rows(jsonl(tmp_path, [row]), Demonstration, columns={**columns, "rating": "category"})


def test_split_picks_by_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"prompt": "a", "split": "train"}, {"prompt": "b", "split": "test"}])
    assert [row.prompt for row in read_rows(path, Prompt, split="test")[0]] == ["b"]
    with pytest.raises(DataError, match=r"no rows of split 'dev'.*\['test', 'train'\]"):
        read_rows(path, Prompt, split="dev")
    with pytest.raises(DataError, match="no column 'split'"):
        read_rows(jsonl(tmp_path, [{"prompt": "a"}]), Prompt, split="test")


def test_limit_counts_usable_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"prompt": x} for x in ("a", 5, "b", "c", 6)])
    rows, refusals = read_rows(path, Prompt, limit=2)
    assert [row.prompt for row in rows] == ["a", "b"]
    assert (refusals.seen, refusals.count) == (3, 1)
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        read_rows(path, Prompt, limit=0)


def test_refuse_error_names_file_and_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}])
    with pytest.raises(DataError, match=r"^rows\.jsonl:2: empty completion in 'completion'"):
        read_rows(path, Demonstration, refuse="error")


# ---------------------------------------------------------------- the hub


def test_hub_id_offline_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(name: str, split: str):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError) as caught:
        read_rows("stanfordnlp/imdb", LabelledText)
    said = str(caught.value)
    assert said.startswith("stanfordnlp/imdb: the hub data set (split 'train') cannot be loaded")
    assert "(OfflineModeIsEnabled). Pass a local .jsonl" in said
    assert "HF_HUB_OFFLINE=0" in said
    assert "\n" not in said


def test_hub_rows_are_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, split: str):
        asked.append((name, split))
        return datasets.Dataset.from_list([{"text": "a", "label": 1}, {"text": "", "label": 0}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows, refusals = read_rows("stanfordnlp/imdb", LabelledText, split="test")
    assert asked == [("stanfordnlp/imdb", "test")]
    assert rows == [LabelledText("stanfordnlp/imdb[test]:1", "a", 1.0)]
    assert refusals.by_reason == {"empty text": ["stanfordnlp/imdb[test]:2"]}


def test_csv_row_with_too_few_cells_and_bad_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,label\n"a, b",1\nc\nd,good\ne,\n')
    rows, refusals = read_rows(tmp_path / "t.csv", LabelledText)
    assert rows == [LabelledText("t.csv:2", "a, b", 1.0), LabelledText("t.csv:5", "e", None)]
    assert refusals.by_reason == {
        "not readable as a row": ["t.csv:3"],
        "wrong type in 'label'": ["t.csv:4"],
    }


def test_hub_configurations_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(path: str, split: str, **parts: str):
        asked.append(parts)
        return datasets.Dataset.from_list([{"chosen": "a"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    one = sources.read_hub("some/set", "test", config="comparisons")
    two = sources.read_hub("some/set", "train", folder="helpful-base")
    assert asked == [{"name": "comparisons"}, {"data_dir": "helpful-base"}]
    assert one[0].where == "some/set[comparisons/test]:1"
    assert two[0].where == "some/set[helpful-base/train]:1"


def test_the_first_source_that_is_there_is_taken(tmp_path: Path) -> None:
    here = tmp_path / "imdb.parquet"
    here.touch()
    missing = str(tmp_path / "missing.parquet")
    assert first_available([missing, str(here), "stanfordnlp/imdb"]) == str(here)
    assert first_available([missing, "stanfordnlp/imdb"]) == "stanfordnlp/imdb"
    assert first_available("stanfordnlp/imdb") == "stanfordnlp/imdb"
    with pytest.raises(DataError, match=r"none of these is there: .*missing\.parquet"):
        first_available([missing])


# ---------------------------------------------------------------- real dialogues, if at hand


def hh(folder: Path) -> tuple[Path, dict[str, int], int]:
    """HH with its warts, or rows with the same warts where the real file is not at hand."""
    real = Path(__file__).parents[3] / "shared" / "data" / "hh.parquet"
    if real.is_file():
        counts = {
            "chosen and rejected are identical": 34,
            "empty completion": 8,
            "prompt of the pair is not shared": 7,
        }
        return real, counts, 7415
    start, other = "\n\nHuman: hi\n\nAssistant:", "\n\nHuman: ho\n\nAssistant:"
    good = {"prompt": start, "chosen": start + " yes", "rejected": start + " no", "prefix_ok": True}
    warts = [
        good | {"rejected": good["chosen"]},
        good | {"chosen": start},
        good | {"rejected": other + " no", "prefix_ok": False},
    ]
    pq.write_table(pa.Table.from_pylist([good] * 20 + warts), folder / "hh.parquet")
    counts = dict.fromkeys(
        (
            "chosen and rejected are identical",
            "empty completion",
            "prompt of the pair is not shared",
        ),
        1,
    )
    return folder / "hh.parquet", counts, 23


def test_real_dialogues_and_their_warts(tmp_path: Path) -> None:
    path, counts, total = hh(tmp_path)
    rows, refusals = read_rows(path, PreferencePair)
    assert refusals.counts == counts
    assert (refusals.seen, len(rows)) == (total, total - sum(counts.values()))
    for row in rows:
        assert isinstance(row.prompt, str)
        assert row.prompt.endswith("\n\nAssistant:")
        assert not str(row.chosen).startswith(row.prompt)
