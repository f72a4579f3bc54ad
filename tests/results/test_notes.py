from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.results.notes import NOTES, Note, Remarks, add_remark, read_remarks

NOTE = Note("the reward jumps", "2026-11-28", "abc")


def test_remarks_come_back_as_they_were_added(tmp_path: Path) -> None:
    assert read_remarks(tmp_path) == {}
    add_remark(tmp_path, "b", NOTE, ["x"])
    add_remark(tmp_path, "a", None, ["y", "y"])
    add_remark(tmp_path, "b", Note("é", "2026-11-29", "abd"), ["w", "x"])
    found = read_remarks(tmp_path)
    assert found == {
        "a": Remarks([], ["y"]),
        "b": Remarks([NOTE, Note("é", "2026-11-29", "abd")], ["x", "w"]),
    }
    assert str(found["b"]) == "#x; #w; the reward jumps; é"


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"notes": [], "tags": [1]}}',
                                     '{"a": {"notes": [{"text": "t"}], "tags": []}}'])  # fmt: skip
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTES).write_text(content)
    with pytest.raises(DataError, match=r"notes\.json: expected \{RUN: "):
        add_remark(tmp_path, "a", NOTE, [])
    assert (tmp_path / NOTES).read_text() == content


@pytest.mark.parametrize("tag", ["", "two words", "#x", "a" * 41])
def test_a_tag_is_one_word(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="a tag is one word"):
        add_remark(tmp_path, "a", None, [tag])
