"""Rows with a few slips, through every data module: counted, refused, or read as they stand."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies

from alignlab.data import modules
from alignlab.data.rows import Row, RowReport, Turn
from alignlab.data.sources import read_rows
from tests.data.tokens import CHATML, bytewise
from tests.robustness.fuzzing import attempt, fuzz, spoilt, spoilt_bytes

ASK = [{"role": "user", "content": "ab?"}]
REPLY = [{"role": "assistant", "content": "b a"}]
OTHER = [{"role": "assistant", "content": "c"}]
VALID: list[tuple[type[modules.TreeData], list[dict[str, Any]]]] = [
    (modules.DemonstrationData, [
        {"id": "one", "prompt": "a", "completion": " b", "ends": True},
        {"id": "two", "prompt": "b a", "completion": " a b c", "ends": False},
        {"id": "three", "prompt": "", "completion": "c"},
        {"prompt": "a\nb", "completion": " é"},
    ]),
    (modules.DemonstrationData, [{"messages": ASK + REPLY}, {"messages": ASK + OTHER + ASK + REPLY},
                                 {"messages": ASK + OTHER}]),
    (modules.PreferenceData, [
        {"id": 1, "prompt": "a", "chosen": " b", "rejected": " c", "margin": 0.5},
        {"id": 2, "prompt": "a", "chosen": " b b", "rejected": " c", "chosen_ends": False},
        {"id": 3, "prompt": "b", "chosen": " a", "rejected": " c a", "margin": 2},
    ]),
    (modules.PreferenceData, [{"chosen": ASK + REPLY, "rejected": ASK + OTHER},
                              {"prompt": ASK, "chosen": REPLY, "rejected": OTHER},
                              {"prompt": ASK, "chosen": OTHER, "rejected": REPLY}]),
    (modules.RankingData, [
        {"prompt": "a", "completions": [" b", " c", " d"], "ranks": [0, 1, 1]},
        {"prompt": "b", "completions": [" b", " c"], "ranks": [2.5, 1.0], "ends": [True, False]},
    ]),
    (modules.RatingData, [{"prompt": "a", "completion": " b", "rating": 3.5},
                          {"prompt": "a", "completion": " c", "rating": -1}]),
    (modules.CandidateData, [
        {"prompt": "a", "completions": [" b", " c", " b"], "ratings": [0.5, -1, 0.5]},
        {"prompt": "b", "completions": [" b"], "ratings": [2.5], "ends": [False]},
    ]),
    (modules.JudgedData, [{"prompt": "a", "completion": " b", "label": "desirable"},
                          {"prompt": "a", "completion": " c", "label": False},
                          {"prompt": "b", "completion": " c", "label": True}]),
    (modules.PromptData, [{"prompt": "a"}, {"prompt": "b c", "id": "x"}, {"prompt": "a\u2028b"}]),
    (modules.TextData, [{"text": "a b c"}, {"text": "b " * 40}]),
    (modules.LabelledData, [{"text": "a b c", "label": 1}, {"text": "b", "label": 0},
                            {"text": "c", "label": 1.0}]),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def as_jsonl(rows: list[Any]) -> bytes:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def as_csv(rows: list[Any]) -> bytes | None:
    """A table of texts; a null is an empty cell, a list is JSON."""
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        return None
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(names)
    for row in rows:
        table.writerow(["" if row.get(n) is None else as_cell(row[n]) for n in names])
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_parquet(rows: list[Any]) -> bytes | None:
    """A Parquet file, where the columns have one type each."""
    if not all(isinstance(row, dict) for row in rows):
        return None
    sink = io.BytesIO()
    try:
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        pq.write_table(table, sink)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError):
        return None
    return sink.getvalue()


WRITERS = {"jsonl": as_jsonl, "csv": as_csv, "parquet": as_parquet}


@fuzz("rows", 0.7)
@given(
    strategies.sampled_from(range(len(VALID))).flatmap(
        lambda which: spoilt(VALID[which][1], 3).map(lambda rows: (which, rows))
    ),
    strategies.sampled_from(list(WRITERS)),
)
def test_spoilt_rows_are_counted_refused_or_read(
    folder: Path, case: tuple[int, list[Any]], kind: str
) -> None:
    which, rows = case
    content = WRITERS[kind](rows)
    if content is None:
        kind, content = "jsonl", as_jsonl(rows)
    path = folder / f"rows.{kind}"
    path.write_bytes(content)
    found = attempt("rows", lambda: set_up(VALID[which][0], path))
    if not found.refused:
        check_rows(VALID[which][0], path, rows)


@fuzz("rows", 0.3)
@given(
    strategies.sampled_from(range(len(VALID))),
    strategies.sampled_from(list(WRITERS)),
    strategies.data(),
)
def test_spoilt_files_are_refused_or_read(
    folder: Path, which: int, kind: str, data: strategies.DataObject
) -> None:
    made = WRITERS[kind](VALID[which][1])
    if made is None:  # a column of two types
        kind, made = "jsonl", as_jsonl(VALID[which][1])
    path = folder / f"bytes.{kind}"
    path.write_bytes(data.draw(spoilt_bytes(made)))
    found = attempt("rows", lambda: set_up(VALID[which][0], path))
    if not found.refused:
        report: RowReport = found.value.reports["train"]
        assert report.seen >= len(found.value.train_rows) > 0


TOKENIZER = bytewise(CHATML, eos="<|im_end|>")


def set_up(made: type[modules.TreeData], path: Path) -> modules.TreeData:
    """Read and tokenise, as a training would before its first step."""
    data = made(source=str(path), batch_size=1, max_length=256)
    data.connect(TOKENIZER)
    data.setup("fit")
    assert data.report()
    return data


def check_rows(made: type[modules.TreeData], path: Path, records: list[Any]) -> None:
    """Every record is a row or refused, in order, and rows say what their records say."""
    rows, refusals = read_rows(path, made.kind)
    assert len(rows) + refusals.count == refusals.seen
    if path.suffix != ".csv":  # there an empty line is none
        assert refusals.seen == len(records)
    waiting = iter(records)
    for row in rows:
        assert any(says(row, record) for record in waiting), row


def says(row: Row, record: Any) -> bool:
    """Whether each text of ``row`` is in ``record``, whole or as a part."""
    there = list(strings(record))
    return all(any(text in each for each in there) for text in texts(row))


def texts(row: Row) -> Iterator[str]:
    for name in ("prompt", "completion", "chosen", "rejected", "completions", "text"):
        value = getattr(row, name, None)
        for each in value if isinstance(value, tuple) else [value]:
            if isinstance(each, str):
                yield each
            elif isinstance(each, Turn):
                yield each.content
            elif isinstance(each, tuple):
                yield from (turn.content for turn in each)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
            yield as_cell(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
            yield as_cell(item)
    elif value is not None:
        yield json.dumps(value)  # a number in a CSV's cell is text
