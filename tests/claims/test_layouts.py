"""Packed rows against a row for each completion."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alignlab.claims import layouts
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from tests.data.files import jsonl

PAIRS = [
    {"prompt": "w3 w4 w5", "chosen": " w4 w5 w6", "rejected": " w7"},
    {"prompt": "w8", "chosen": " w9", "rejected": " w6 w5 w7 w3"},
    {"prompt": "w9 w9", "chosen": " w9", "rejected": " w6"},
]


@pytest.fixture
def stage(build: Callable[..., Policy], tmp_path: Path) -> Callable[[], dict[str, str]]:
    build("llama", dtype="float32").save(tmp_path / "sft")

    def run() -> dict[str, str]:
        pairs = str(jsonl(tmp_path, PAIRS))
        layouts.compare_layouts(out=tmp_path, policy=str(tmp_path / "sft"), pairs=pairs, limit=2)
        (row,) = read_table(tmp_path / "layouts.csv")
        return row

    return run


def test_sharing_a_prompt_changes_rounding_alone(stage: Callable[[], dict[str, str]]) -> None:
    row = stage()
    assert row["pairs"] == "2"
    assert float(row["logp_difference"]) < 1e-5
    assert float(row["gradient_difference"]) < 1e-5


def test_differences_by_hand(
    stage: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest of 0.5 and 0; |(0, 4)| over |(3, 4)|."""
    known = {"packed": ([[1.0, 2.0]], [3.0, 0.0]), "flat": ([[1.0, 2.5]], [3.0, 4.0])}
    monkeypatch.setattr(
        layouts, "_computed", lambda _, __, how: tuple(map(torch.tensor, known[how]))
    )
    row = stage()
    assert float(row["logp_difference"]) == pytest.approx(0.5)
    assert float(row["gradient_difference"]) == pytest.approx(0.8)
