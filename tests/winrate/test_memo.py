from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.winrate.memo import Memo


def test_answers_are_there_when_the_file_is_read_again(tmp_path: Path) -> None:
    with Memo(tmp_path / "deep" / "memo.jsonl") as memo:
        memo.keep({"a": 1.5, "b": ["é\u2028", True]})
        memo.keep({"c": None})
    with Memo(tmp_path / "deep" / "memo.jsonl") as again:
        assert ("a" in again, "d" in again, len(again)) == (True, False, 3)
        assert (again["a"], again["b"], again["c"]) == (1.5, ["é\u2028", True], None)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_a_kill_cut_off_is_dropped_and_the_next_one_is_whole(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "memo.jsonl"
    with Memo(path) as memo:
        memo.keep({"a": 1, "b": "long enough to be cut"})
    path.write_bytes(path.read_bytes()[:-cut])
    with Memo(path) as memo:
        assert ("a" in memo, "b" in memo) == (True, False)
        memo.keep({"b": 2})
    with Memo(path) as again:
        assert (again["a"], again["b"]) == (1, 2)


def test_another_line_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "memo.jsonl").write_text('{"key": "a", "answer": 1}\nrubbish\n')
    with pytest.raises(DataError, match=r"memo\.jsonl:2: not an answer"):
        Memo(tmp_path / "memo.jsonl")


def test_two_calls_do_not_write_one_file(tmp_path: Path) -> None:
    with Memo(tmp_path / "memo.jsonl") as first:
        with pytest.raises(ConfigError, match="another call writes there"):
            Memo(tmp_path / "memo.jsonl")
        first.keep({"a": 1})
