"""``docs/python.md`` and its notebook hold the same code, and it runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"


def blocks() -> list[str]:
    """The Python of the page, block by block."""
    return re.findall(r"```python\n(.*?)\n```", (DOCS / "python.md").read_text(), re.DOTALL)


def test_the_notebook_is_the_page() -> None:
    notebook = json.loads((DOCS / "python.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert cells == blocks()
    assert len(cells) == 5


@pytest.mark.slow  # trains four small policies
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for block in blocks():
        exec(block, known)
    # By hand, at beta 0.1: margins of 1 and -0.5 nats give log(1 + e^-0.1) and log(1 + e^0.05).
    assert known["losses"].tolist() == pytest.approx([0.644397, 0.718460], abs=1e-6)
    assert len(known["three"]) == 3
    assert torch.all(known["logps"] < 0)
    start, points = known["start"], known["points"]
    assert start.kl == 0
    assert [point.kl for point in points] == sorted(point.kl for point in points)
    assert all(point.reward > start.reward for point in points)
    assert known["rewards"][0] is not None
