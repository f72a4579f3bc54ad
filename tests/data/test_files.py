"""One table is read the same from every type of file."""

import csv
import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab.data.rows import (
    Demonstration,
    JudgedCompletion,
    PreferencePair,
    Prompt,
    R,
    Ranking,
    RatedCompletion,
    Turn,
)
from alignlab.data.sources import StoredRecords, read_rows
from alignlab.errors import DataError
from tests.data.files import jsonl

# U+0085, U+2028 and U+2029 end lines for Unicode, a form feed and U+001C for Python's splitlines.
BREAKS = "a\x85b\u2028c\u2029d\x0ce\x1cf"
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": 'yes, "it" is\'s'}]


def as_cell(value: Any) -> Any:
    """As pandas writes it: nothing for a null, lists as Python prints them."""
    return "" if value is None else value if isinstance(value, str) else str(value)


def write(folder: Path, rows: list[dict[str, Any]], name: str) -> Path:
    """The rows as a file of the type that its name says."""
    path, columns = folder / name, list(dict.fromkeys(key for row in rows for key in row))
    full = [{key: row.get(key) for key in columns} for row in rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(full), path)
    elif name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows([{k: as_cell(v) for k, v in row.items()} for row in full])
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(full, indent=2), encoding="utf-8")
    else:
        path.write_text(lines, encoding="utf-8")
    return path


TYPES = ("t.jsonl", "t.json", "t.csv", "t.parquet", "t.jsonl.gz")


def read_all(folder: Path, rows: list[dict[str, Any]], kind: type[R]) -> tuple[list[Any], Any]:
    """What all types of file give: the rows without their names, and refusals by place."""
    found = []
    for name in TYPES:
        usable, refusals = read_rows(write(folder, rows, name), kind)
        values = [[getattr(row, f.name) for f in fields(row)[1:]] for row in usable]
        first = 2 if name.endswith(".csv") else 1  # a CSV has a header
        places = {
            reason: [int(where.rpartition(":")[2]) - first for where in wheres]
            for reason, wheres in refusals.by_reason.items()
        }
        found.append((values, places))
    assert found == [found[0]] * len(TYPES)
    return found[0]


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
SAID = {"prompt": "p", "completion": "c"}


def test_pairs_with_nulls_truth_values_numbers_and_odd_characters(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {**PAIR, "margin": 0.5, "chosen_ends": True, "rejected_ends": False},
        {**PAIR, "margin": 2, "chosen_ends": None},
        {**PAIR, "prompt": None},
        {**PAIR, "rejected": None},
        {**PAIR, "prompt": BREAKS, "chosen": ' "x", \\ ;\ty'},
        {**PAIR, "chosen": "a" * 200_000},
    ]
    values, refused = read_all(tmp_path, rows, PreferencePair)
    assert values == [
        ["p", "a", "b", True, False, 0.5],
        ["p", "a", "b", True, True, 2.0],
        [BREAKS, ' "x", \\ ;\ty', "b", True, True, None],
        ["p", "a" * 200_000, "b", True, True, None],
    ]
    assert refused == {"missing column 'prompt'": [2], "missing column 'rejected'": [3]}
    said = ["2 rows have an empty cell, which CSV reads as no value, not as empty text"]
    for name in TYPES:
        notes = read_rows(write(tmp_path, rows, name), PreferencePair)[1].notes
        assert notes == (said if name == "t.csv" else [])


@pytest.mark.parametrize(
    "labels",
    [
        [True, False, None],
        ["True", "false", ""],
        [1, 0, None],
        [1.0, 0.0, None],
        ["1", "0", ""],
        ["desirable", "undesirable", None],
    ],
)
def test_truth_values_however_they_are_written(tmp_path: Path, labels: list[Any]) -> None:
    values, refused = read_all(tmp_path, [{**SAID, "label": x} for x in labels], JudgedCompletion)
    assert [row[2] for row in values] == ["desirable", "undesirable"]
    assert list(refused.values()) == [[2]]


@pytest.mark.parametrize("labels", [["yes", "no", "good"], [2, -1, 0.5]])
def test_what_is_no_truth_value_is_refused_everywhere(tmp_path: Path, labels: list[Any]) -> None:
    rows = [{**SAID, "label": label} for label in labels]
    for name in TYPES:
        with pytest.raises(DataError, match="none of its 3 rows can be used: wrong value in 'lab"):
            read_rows(write(tmp_path, rows, name), JudgedCompletion)


@pytest.mark.parametrize("ratings", [[4, 2.5, None], ["4", "2.5", ""]])
def test_numbers_however_they_are_written(tmp_path: Path, ratings: list[Any]) -> None:
    rows = [{**SAID, "rating": rating} for rating in ratings]
    values, refused = read_all(tmp_path, rows, RatedCompletion)
    assert [row[2] for row in values] == [4.0, 2.5]
    assert refused == {"missing column 'rating'": [2]}


def test_nested_columns(tmp_path: Path) -> None:
    """Conversations and lists; a call in one message gives every message of a Parquet a null."""
    calls = [{"type": "function", "function": {"name": "w", "arguments": '{"at": "sea"}'}}]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    rows: list[dict[str, Any]] = [
        {"messages": TALK},
        {"messages": [TALK[0], asked, TALK[1]]},
    ]
    values, _ = read_all(tmp_path, rows, Demonstration)
    user, assistant = (Turn(turn["role"], turn["content"]) for turn in TALK)
    assert values[0] == [(user,), (assistant,), True]
    (prompt, (call, reply), _) = values[1]
    assert (prompt, reply) == ((user,), assistant)
    assert (call.role, call.content) == ("assistant", "")
    assert call.fields == {"tool_calls": calls, "content": None}
    ranking = {
        "prompt": "p",
        "completions": ["a, b", "c'd"],
        "ranks": [1, 2],
        "ends": [True, False],
    }
    values, _ = read_all(tmp_path, [ranking], Ranking)
    assert values == [["p", ("a, b", "c'd"), (0, 1), (True, False)]]


def test_a_nested_column_of_a_csv_may_be_json(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(TALK)]])
    (row,), _ = read_rows(tmp_path / "t.csv", Demonstration)
    assert (row.prompt, row.completion) == (
        (Turn("user", "hi"),),
        (Turn("assistant", TALK[1]["content"]),),
    )


def test_a_plain_text_that_looks_like_a_list_stays_a_text(tmp_path: Path) -> None:
    rows = [{"prompt": "[1, 2, 3]"}, {"prompt": "[not json"}, {"prompt": '{"a": 1}'}]
    values, _ = read_all(tmp_path, rows, Prompt)
    assert values == [["[1, 2, 3]"], ["[not json"], ['{"a": 1}']]


def test_marks_of_windows(tmp_path: Path) -> None:
    """A byte-order mark, and lines that end in two characters; those of a text stay."""
    (tmp_path / "a.csv").write_bytes('\ufeffprompt\r\n"a\r\nb"\r\nc\r\n'.encode())
    (tmp_path / "a.jsonl").write_bytes(
        '\ufeff{"prompt": "a\\r\\nb"}\r\n{"prompt": "c"}\r\n'.encode()
    )
    for name in ("a.csv", "a.jsonl"):
        assert [row.prompt for row in read_rows(tmp_path / name, Prompt)[0]] == ["a\r\nb", "c"]


# ---------------------------------------------------------------- several files


def test_a_folder_and_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    jsonl(folder, [{"prompt": "c"}], "b.jsonl")
    jsonl(folder, [{"prompt": "a"}, {"prompt": "b"}], "a.jsonl")
    (folder / "README.md").write_text("About the data.")
    for source in (folder, str(folder), f"{folder}/*.jsonl", f"{tmp_path}/**/*.jsonl"):
        rows, refusals = read_rows(source, Prompt)
        assert [(row.id, row.prompt) for row in rows] == [
            ("a.jsonl:1", "a"),
            ("a.jsonl:2", "b"),
            ("b.jsonl:1", "c"),
        ]
        assert refusals.source == str(source)


def test_files_of_one_name_in_two_folders_have_rows_of_their_own(tmp_path: Path) -> None:
    for part in ("x", "y"):
        (tmp_path / part).mkdir()
        jsonl(tmp_path / part, [{"prompt": part}])
    rows, _ = read_rows(f"{tmp_path}/*/rows.jsonl", Prompt)
    assert [(row.id, row.prompt) for row in rows] == [
        ("x/rows.jsonl:1", "x"),
        ("y/rows.jsonl:1", "y"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("empty", "the folder holds no data file"),
        ("empty/*.jsonl", "no file matches the pattern"),
        ("mixed", r"files of several types \(\.csv, \.jsonl\). Name one with a pattern"),
        ("texts/*", "cannot tell its format from the suffix '.txt'"),
        ("cut.jsonl.gz", "cannot be read"),
        ("twice.csv", "two columns have the name 'prompt'"),
        ("t.parquet.gz", "cannot tell its format"),
        ("twice.parquet", "two columns have the name 'prompt'"),
        ("twice.jsonl", "none of its 1 rows can be used: not readable as a row"),
        ("broken.json", "broken.json: not JSON: "),
        ("excel.csv", "excel.csv: cells are separated by ';'. Separate them by commas"),
        ("t.arrow", "suffix '.arrow'. Write it as Parquet"),
        ("t.tsv", "suffix '.tsv'. Write it as .csv, with commas"),
        ("t.jsonl.xz", "suffix '.xz'. Unpack it, or pack it as .gz, .bz2, .zst"),
        ("pointer.parquet", "pointer.parquet: a pointer of Git LFS.* git lfs pull"),
        ("quotes.csv", "quotes.csv:3: not CSV"),
        ("nested", r"nested/deep does. Name that folder, or .*, such as nested/\*\*/\*\.jsonl"),
        ("nested/*", "no file matches the pattern"),
        ("dates.parquet", "column 'at' has values that Python cannot hold: .* Write it as text"),
    ],
)
def test_what_cannot_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "mixed", "texts"):
        (tmp_path / name).mkdir()
    jsonl(tmp_path / "mixed", [{"prompt": "a"}])
    (tmp_path / "mixed" / "rows.csv").write_text("prompt\na\n")
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:40])
    (tmp_path / "twice.csv").write_text("prompt,prompt\na,b\n")
    (tmp_path / "t.parquet.gz").write_bytes(b"x")
    (tmp_path / "twice.jsonl").write_text('{"prompt": "a", "prompt": "b"}\n')
    (tmp_path / "broken.json").write_text('[\n {"prompt": "a"},\n {"prompt": }\n]\n')
    (tmp_path / "excel.csv").write_text("prompt;id\na;b\n")
    for name in ("t.arrow", "t.tsv", "t.jsonl.xz"):
        (tmp_path / name).write_bytes(b"x")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "pointer.parquet").write_text(pointer)
    (tmp_path / "quotes.csv").write_text('prompt,id\na,b\n"c "d" e",f\n')  # wrong in line 3
    (tmp_path / "nested" / "deep").mkdir(parents=True)
    jsonl(tmp_path / "nested" / "deep", [{"prompt": "a"}])
    late = pa.array([10**15], pa.timestamp("s"))  # after the year 9999
    pq.write_table(pa.table({"prompt": ["a"], "at": late}), tmp_path / "dates.parquet")
    columns = [pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.table(columns, names=["prompt", "prompt"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=message):
        read_rows(source, Prompt)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train-00000-of-00001", "test-00000-of-00001"], r"splits \(test, train\)"),
        (["train_prefs", "val"], r"splits \(train, val\).* such as .*/val\*\.jsonl"),
        (["train-00000-of-00002", "train-00001-of-00002"], None),
        (["trained", "tests"], None),
    ],
)
def test_a_folder_of_several_splits_is_not_read_as_one(
    tmp_path: Path, names: list[str], said: str | None
) -> None:
    """Or the test rows would be trained on. A pattern may ask for all."""
    for name in names:
        jsonl(tmp_path, [{"prompt": name}], f"{name}.jsonl")
    assert len(read_rows(tmp_path / "*.jsonl", Prompt)[0]) == 2
    if said is None:
        assert len(read_rows(tmp_path, Prompt)[0]) == 2
        return
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path, Prompt)


def test_a_folder_of_save_to_disk_says_how_to_write_its_rows(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"prompt": "a"}])
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows).save_to_disk(str(tmp_path / "two"))
    for name, found in (("one", ""), ("two", r"\['train'\]")):
        said = rf"load_from_disk\('{tmp_path / name}'\){found}\.to_parquet"
        with pytest.raises(DataError, match=f"written by save_to_disk.*{said}"):
            read_rows(tmp_path / name, Prompt)


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        ({"prompt": ["a", "b"], "id": ["1", "2"]}, "holds columns, not rows"),
        ({"prompt": {"0": "a", "1": "b"}}, "holds columns, not rows"),  # as pandas writes it
        ({"version": 1, "data": [{"prompt": "a"}]}, "one JSON object, whose 'data' may be"),
        ({"prompt": [{"role": "user", "content": "a"}]}, None),
        ({"messages": [{"from": "human", "value": "a"}], "tools": [{"name": "f"}]}, None),
        ({"prompt": "a", "tools": [{"name": "f"}]}, None),
    ],
)
def test_a_table_written_as_one_object_is_not_one_row(
    tmp_path: Path, whole: dict[str, Any], said: str | None
) -> None:
    (tmp_path / "t.json").write_text(json.dumps(whole))
    if said is None:
        assert len(read_rows(tmp_path / "t.json", Prompt)[0]) == 1
        return
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / "t.json", Prompt)


def test_an_object_with_two_values_of_a_name_is_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"prompt": "a", "prompt": "b"}, {"prompt": "c"}]')
    rows, refusals = read_rows(tmp_path / "a.json", Prompt)
    assert [row.prompt for row in rows] == ["c"]
    assert refusals.by_reason == {"not readable as a row": ["a.json:1"]}


def test_one_object_in_a_json_file_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "a"}, indent=1))
    (tmp_path / "lines.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row.prompt for row in read_rows(tmp_path / "a.json", Prompt)[0]] == ["a"]
    assert [row.prompt for row in read_rows(tmp_path / "lines.json", Prompt)[0]] == ["a", "b"]


def test_pieces_of_a_table_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.data.files.ROWS_AT_ONCE", 2)
    table = pa.table({"prompt": list("abcdefg")})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    rows, _ = read_rows(tmp_path / "t.parquet", Prompt)
    assert [(row.id, row.prompt) for row in rows] == [
        (f"t.parquet:{k}", letter) for k, letter in enumerate("abcdefg", start=1)
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "t.jsonl.gz"])
def test_a_byte_that_is_no_text_is_named_by_its_place_in_the_file(
    tmp_path: Path, name: str
) -> None:
    content = b'{"prompt": "a"}\n{"prompt": "\xff"}\n'
    if name.endswith(".csv"):
        content = b"prompt\naaaaaaaaa\nbbbbbbbbbbb\xff\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match="not a text file: invalid start byte at byte 28"):
        read_rows(path, Prompt)


def test_a_source_of_lines_is_read_a_record_at_a_time(tmp_path: Path) -> None:
    """The line that is not text is behind the one that is asked for."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\xff\n')
    records = iter(StoredRecords(path, [path]))
    assert next(records).fields == {"prompt": "a"}
    with pytest.raises(DataError, match="at byte 16"):
        next(records)
