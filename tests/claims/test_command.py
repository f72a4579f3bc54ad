"""The command writes both files and prints a line for each card."""

from pathlib import Path

import pytest

from alignlab.claims.cards import CARDS
from alignlab.cli import main


def test_it_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["claims", str(tmp_path)])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.strip().split("\n")) == len(CARDS)
    assert {path.name for path in tmp_path.iterdir()} == {"claims.csv", "README.md"}
