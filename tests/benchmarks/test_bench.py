"""The comparison with peers: its order, its sums, and what it refuses to time."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module; it imports what lies beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("bench")
    for name in [name for name in sys.modules if name.split(".")[0] in ("bench", "sides")]:
        sys.modules.pop(name)


@pytest.fixture
def case(bench: Any) -> Any:
    return bench.Case("dpo-small", "dpo", 6, 3, batch=2, steps=1, warmup=1, hidden=16, layers=1)


def test_sides_take_turns(bench: Any) -> None:
    assert list(bench.in_turn(["a", "b"], 2)) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_ratio_is_the_median_over_pairs_with_its_range(bench: Any, case: Any) -> None:
    """Ratios 2, 8 and 3: their median is 3, that of the medians 6 / 2 is not what counts."""
    ours = [{"cpu": x, "wall": 1.0} for x in (1.0, 1.0, 2.0)]
    theirs = [{"cpu": x, "wall": 2.0} for x in (2.0, 8.0, 6.0)]
    row = bench.row_of(case, "trl", ours, theirs, {"alignlab": 2_000_000, "trl": 5_000_000})
    assert [row[f"cpu_ratio{x}"] for x in ("", "_least", "_most")] == [3.0, 2.0, 8.0]
    assert (row["ours_cpu_ms"], row["peer_cpu_ms"], row["wall_ratio"]) == (1000.0, 6000.0, 2.0)
    assert (row["ours_peak_mb"], row["peer_peak_mb"]) == (2, 5)


@pytest.mark.parametrize(
    "theirs", [[0.69, 0.6], [0.69], [0.69, float("nan")], []], ids=["other", "few", "nan", "none"]
)
def test_a_case_whose_losses_differ_is_an_error(bench: Any, case: Any, theirs: list[float]) -> None:
    with pytest.raises(bench.DifferentWork, match="dpo-small"):
        bench.check_losses(case, [0.69, 0.61], theirs)


def test_losses_that_agree_to_rounding_pass(bench: Any, case: Any) -> None:
    assert bench.check_losses(case, [0.5, 1.0], [0.5, 1.001]) == pytest.approx(1e-3, rel=1e-2)


def test_rows_are_a_function_of_the_case(case: Any) -> None:
    rows = case.rows
    assert rows == case.rows
    assert len(rows) == 4
    assert all(len(row["completions"]) == 2 and row["completions"][0][-1] == 2 for row in rows)


@pytest.mark.slow  # two processes that import all they need
def test_the_same_training_on_all_sides(bench: Any, case: Any) -> None:
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(bench.started(name)) for name in ("alignlab", "trl", "plain")
        }
        rows = bench.compared(case, sides, 1)
    assert [row["peer"] for row in rows] == ["trl", "plain"]
    assert all(row["cpu_ratio"] > 0 and row["ours_peak_mb"] >= 0 for row in rows)
