import math
from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table, write_table


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.csv"
    write_table(path, [{"name": "a, b", "x": 1 / 3, "n": 2}, {"name": "c"}])
    assert path.read_text() == 'name,x,n\n"a, b",0.333333,2\nc,,\n'
    assert read_table(path) == [
        {"name": "a, b", "x": "0.333333", "n": "2"},
        {"name": "c", "x": "", "n": ""},
    ]


def test_a_number_has_one_spelling(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    row = {"x": -0.0, "y": math.nan, "z": None, "n": 12, "d": {"b": 1.5, "a": "ü"}}
    for numbers, zero in ((".6f", "0.000000"), (".3g", "0"), ("", "0.0")):
        assert write_table(path, [row], numbers=numbers)
        assert path.read_text() == f'x,y,z,n,d\n{zero},,,12,"{{""a"":""ü"",""b"":1.5}}"\n'


def test_a_table_that_says_nothing_new_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert write_table(path, [], ("a", "b"))
    assert path.read_text() == "a,b\n"
    assert read_table(path, min_rows=0) == []
    before = path.stat()
    assert not write_table(path, [], ("a", "b"))
    assert path.stat().st_ino == before.st_ino
    with pytest.raises(ValueError, match="not in fieldnames: 'c'"):
        write_table(path, [{"a": 1, "c": 2}], ("a", "b"))


def test_missing_and_empty_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: no such table"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"t\.csv: the table holds no rows"):
        read_table(tmp_path / "t.csv")


def test_a_cell_may_hold_any_end_of_line(tmp_path: Path) -> None:
    """A carriage return that is not quoted would end the row for a reader."""
    rows = [{"text": f"a{end}b", "n": "1"} for end in ("\r", "\n", "\r\n", "\u2028", "\x1c")]
    write_table(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_bytes().startswith(b'text,n\n"a\rb",1\n"a\nb",1\n')
    assert read_table(tmp_path / "t.csv") == rows
