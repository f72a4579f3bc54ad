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


def test_missing_and_empty_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: cannot be read"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"t\.csv: the table holds no rows"):
        read_table(tmp_path / "t.csv")
