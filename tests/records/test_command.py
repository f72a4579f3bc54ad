"""The commands as a user types them."""

import json
from pathlib import Path

import pytest

from tests.test_cli import call


def test_notes_and_tags_are_kept_beside_the_tables(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (toy / "points.csv").read_bytes()
    assert call("note", "ppo-s0", "  too long ", "--tag", "hacked", "--tag", "v2") == 0
    assert capsys.readouterr().out == (
        "results/toy/ppo-s0: #hacked; #v2; too long (in results/toy/notes.json)\n"
    )
    assert call("note", "ppo-s0", "--tag", "hacked") == 0
    assert call("show", "ppo-s0", "--in", "results/toy") == 0
    assert "tags      hacked, v2\n" in capsys.readouterr().out
    (entry,) = json.loads((toy / "notes.json").read_text())["ppo-s0"]["notes"]
    assert (entry["text"], entry["config_sha"]) == ("too long", "sha-ppo-s0")
    assert (toy / "points.csv").read_bytes() == before


def test_a_catalogue_is_written_beside_the_folders(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("catalogue") == 0
    assert capsys.readouterr().out == "1 results folder: results/catalogue.html\n"
    assert "dpo-beta0.5-s1" in Path("results/catalogue.html").read_text()
    assert call("catalogue", "nowhere") == 2
    assert "nowhere: no results folder there" in capsys.readouterr().err


def test_bad_calls_are_one_message(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("note", "ppo-s0") == 2
    assert "give a text, a --tag, or both" in capsys.readouterr().err
    assert call("note", "ppo-s0", "--tag", "two words") == 2
    assert "a tag is one word" in capsys.readouterr().err
    assert call("show", "ppo-s9") == 2
    assert "Did you mean" in capsys.readouterr().err
