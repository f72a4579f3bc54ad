"""The profile of a training step: which steps it holds, and its table."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("profile_step")
    own = ("profile_step", "bench", "bench_report", "sides")
    for name in [name for name in sys.modules if name.split(".")[0] in own]:
        sys.modules.pop(name)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, about so short a run
def test_a_step_of_the_table_is_an_optimizer_step(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each has one call of AdamW, and a product for every weight matrix forward."""
    sizes = {"batch": 2, "hidden": 16, "layers": 1, "vocabulary": 64}
    monkeypatch.setitem(script.KNOWN, "small", script.replace(script.CASES[0], **sizes))
    lines = script.of_case("small", tmp_path).table()
    assert lines[0].endswith("%.")
    rows = [line.strip("| ").split(" | ") for line in lines[4:]]
    calls = {name.strip("`"): int(count) for name, _, _, count in rows}
    assert calls["Optimizer.step#AdamW.step"] == 1
    assert calls["aten::mm"] >= 7 * 4  # with the reference's forward, and two products backward
    shares = [int(share.rstrip("%")) for _, share, _, _ in rows]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100 + len(shares) / 2
