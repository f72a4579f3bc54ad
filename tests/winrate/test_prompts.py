from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.winrate.prompts import read_held_out
from tests.data.files import jsonl


def test_each_prompt_is_there_once_with_its_columns(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = read_held_out(pairs, ["chosen", "rejected"], split=None, limit=3)
    assert [one.row.id for one in held] == ["r0", "r1", "r2"]
    assert [one.place for one in held] == [0, 2, 3]  # the second row repeats the first prompt
    assert held[0].columns == {"chosen": " w9 w10", "rejected": " w5"}
    assert "1 rows repeat a prompt, the first is used" in capsys.readouterr().err


def test_prompts_alone_and_demonstrations(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": " b", "split": "test"},
            {"prompt": "c", "completion": " d", "split": "train"}]  # fmt: skip
    source = jsonl(tmp_path, rows)
    (held,) = read_held_out(source, ["completion"], split="test", limit=None)
    assert (str(held.text), held.columns) == ("a", {"completion": " b"})
    assert [one.columns for one in read_held_out(source, [], split=None, limit=None)] == [{}, {}]


def test_impossible_columns_and_limits(pairs: Path) -> None:
    with pytest.raises(ConfigError, match="'completion' is a column of demonstrations"):
        read_held_out(pairs, ["completion", "chosen"], split=None, limit=3)
    with pytest.raises(ConfigError, match="limit must be at least 1, got 0"):
        read_held_out(pairs, [], split=None, limit=0)
