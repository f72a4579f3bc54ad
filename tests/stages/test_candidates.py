"""The stage of candidates: samples of the reference as the pairs have them, with their rewards."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alignlab.data.rows import Candidates, PreferencePair, Prompt
from alignlab.data.sources import read_rows
from alignlab.errors import DataError
from alignlab.models.policy import Policy
from alignlab.stages.candidates import make_candidates
from alignlab.stages.completed import Completed, Completions
from alignlab.stages.pairs import make_pairs
from tests.rollouts.word_sum import WordSum

SUM = {"class_path": "tests.rollouts.word_sum.WordSum"}


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved policy and 12 prompts for it."""
    folder = tmp_path_factory.mktemp("candidates")
    build(dtype="float32", spread=0.1).save(folder / "policy")
    lines = [json.dumps({"prompt": f" w{3 + i} w{5 + i // 2}"}) for i in range(12)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def settings(folder: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    policy, prompts = str(folder / "policy"), str(folder / "prompts.jsonl")
    return {"out": out, "policy": policy, "prompts": prompts, "reward": SUM, "max_new_tokens": 4}


def test_a_row_holds_a_prompts_samples_and_their_rewards(folder: Path, tmp_path: Path) -> None:
    """With the seed of the pairs, the completions of the pairs are among them."""
    make_candidates(**settings(folder, tmp_path / "out"), samples=5, seed=3)
    rows, _ = read_rows(str(tmp_path / "out" / "candidates.jsonl"), Candidates)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    kept = sum(len(row.completions) for row in rows)
    assert summary["rows"] == len(rows) == 12
    assert summary["completions"] == 60 == kept + summary["dropped"]["an empty completion"]
    for row in rows:
        texts = [str(text) for text in row.completions]
        assert list(row.ratings) == WordSum()([], texts).tolist()
    assert {end for row in rows for end in row.ends or ()} == {True, False}

    make_pairs(**settings(folder, tmp_path / "pairs"), samples=3, seed=3, validation_share=0.0)
    of = {row.prompt: list(zip(row.completions, row.ends or (), strict=True)) for row in rows}
    pairs, _ = read_rows(str(tmp_path / "pairs" / "pairs.jsonl"), PreferencePair)
    assert len(pairs) > 20
    for pair in pairs:
        assert (pair.chosen, pair.chosen_ends) in of[pair.prompt]
        assert (pair.rejected, pair.rejected_ends) in of[pair.prompt]


def test_empty_completions_are_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Completions([" ", " w4", ""], [True] * 3, torch.tensor([1.0, 4.0, 0.0]))]
    said.append(Completions(["", " ", ""], [True] * 3, torch.zeros(3)))

    def draw(self: Completed, *given: Any) -> Iterator[tuple[Prompt, int, Completions]]:
        for i, own in enumerate(said):
            given[-1].count(own, self.trees[i])
            yield self.rows[i], i, own

    monkeypatch.setattr(Completed, "draw", draw)
    make_candidates(**settings(folder, tmp_path / "out"), samples=3)
    (row,) = read_rows(str(tmp_path / "out" / "candidates.jsonl"), Candidates)[0]
    assert (row.completions, row.ratings, row.ends) == ((" w4",), (4.0,), (True,))
    said.pop(0)
    with pytest.raises(DataError, match="all 3 completions are empty"):
        make_candidates(**settings(folder, tmp_path / "none"), samples=3)
