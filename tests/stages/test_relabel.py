"""Flipped labels, and the pairs of rankings."""

from pathlib import Path

import pytest

from alignlab.data.rows import PreferencePair, Ranking
from alignlab.data.sources import read_rows, write_rows
from alignlab.stages.relabel import flip_labels, pairs_of_rankings


def pairs_of(folder: Path) -> list[PreferencePair]:
    return read_rows(folder / "pairs.jsonl", PreferencePair)[0]


def test_a_share_of_labels_flips_and_the_ends_with_them(tmp_path: Path) -> None:
    rows = [
        PreferencePair(f"p{i}", "say", f" good {i}", f" bad {i}", True, False) for i in range(400)
    ]
    write_rows(tmp_path / "given.jsonl", rows)
    flipped = {}
    for share in (0.0, 0.2, 0.4, 1.0):
        out = tmp_path / str(share)
        flip_labels(out=out, source=str(tmp_path / "given.jsonl"), share=share, seed=1)
        found = pairs_of(out)
        flipped[share] = {row.id for row in found if str(row.chosen).startswith(" bad")}
        assert all(row.chosen_ends == str(row.chosen).startswith(" good") for row in found)
    assert flipped[0.0] == set()
    assert len(flipped[1.0]) == 400
    assert len(flipped[0.2]) == pytest.approx(80, abs=4 * (400 * 0.2 * 0.8) ** 0.5)
    assert flipped[0.2] < flipped[0.4]  # the same pairs and more


def test_all_pairs_of_a_ranking_whose_ranks_differ(tmp_path: Path) -> None:
    row = Ranking("r", "say", (" a", " b", " c"), (1, 0, 1), (True, False, True))
    write_rows(tmp_path / "given.jsonl", [row])
    pairs_of_rankings(out=tmp_path, source=str(tmp_path / "given.jsonl"))
    found = [(p.id, str(p.chosen), str(p.rejected), p.chosen_ends) for p in pairs_of(tmp_path)]
    assert found == [("r#1-0", " b", " a", False), ("r#1-2", " b", " c", False)]
