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


def test_rows_are_a_function_of_the_case(bench: Any, case: Any) -> None:
    same = bench.replace(case)
    assert same.batches == case.batches
    assert [len(batch) for batch in case.batches] == [2, 2]
    assert len(case.measured) == 2
    rows = [row for batch in case.batches for row in batch]
    assert all(len(row["completions"]) == 2 and row["completions"][0][-1] == 2 for row in rows)


def test_ragged_texts_fill_packs_and_overflow_none(bench: Any, case: Any) -> None:
    ragged = bench.replace(case, objective="sft", completion=96, k=1, ragged=True)
    for batch in ragged.batches:
        filled = [0, 0]
        for row in batch:
            filled[row["pack"]] += len(row["prompt"]) + len(row["completions"][0])
        assert all(0 < tokens <= 512 for tokens in filled)


def test_what_updates_do_is_compared_by_its_largest_change(bench: Any, case: Any) -> None:
    """A change of nothing may be off by a hundredth of the largest one."""
    sampled = bench.replace(case, objective="grpo")
    assert bench.check_losses(sampled, [1.0, 0.0], [1.0, 0.01]) == pytest.approx(0.01)
    with pytest.raises(bench.DifferentWork):
        bench.check_losses(sampled, [1.0, 0.0], [1.0, 0.1])


def test_a_table_goes_on_where_it_was_left(bench: Any, tmp_path: Path) -> None:
    rows = [{"case": "a", "peer": "trl", "value": 1}, {"case": "b", "peer": "trl", "value": 2}]
    bench.add_rows(tmp_path, rows)
    bench.add_rows(tmp_path, [{"case": "b", "peer": "trl", "value": 3}])
    known = bench.read_table(tmp_path)
    assert [(*bench.key_of(row), row["value"]) for row in known] == [
        ("a", "trl", "1"),
        ("b", "trl", "3"),
    ]


def test_the_limit_counts_each_token_once(bench: Any) -> None:
    """SFT, a prompt of 3 and a completion of 2 with EOS, width 4, a layer, 16 words: by hand."""
    limit = importlib.import_module("sides.limit_side")
    sizes = {"hidden": 4, "layers": 1, "vocabulary": 16, "exact": True}
    case = bench.Case("sft", "sft", 3, 1, 1, batch=1, steps=1, warmup=0, **sizes)
    weights = 4 * 4 * 4 + 3 * 4 * 12
    keys = 1 + 2 + 3 + 4 + 5
    by_hand = 3 * (2 * 5 * weights + 4 * 4 * keys + 2 * 2 * 4 * 16)
    assert sum(product.flops for product in limit.necessary(case)) == by_hand


def test_the_limit_of_an_on_policy_step(bench: Any) -> None:
    """PPO, a prompt of 3 and 2 tokens: sampled once, read once by the reference, updated thrice."""
    limit = importlib.import_module("sides.limit_side")
    sizes = {"hidden": 4, "layers": 1, "vocabulary": 16, "exact": True}
    case = bench.Case("ppo", "ppo", 3, 2, 1, batch=1, steps=1, warmup=0, **sizes)
    weights = 4 * 4 * 4 + 3 * 4 * 12
    keys = 1 + 2 + 3 + 4 + 5 + 6  # of the row's completion with EOS, which stands for a sampled one
    by_hand = 5 * 2 * (5 * weights + 2 * 4 * 16) + 4 * 4 * 4 * keys
    assert sum(product.flops for product in limit.necessary(case)) == by_hand


def test_the_limit_of_kto_reads_a_second_completion(bench: Any) -> None:
    """A prompt of 3 and 2 tokens: four passes over it, two more over the 2 tokens alone."""
    limit = importlib.import_module("sides.limit_side")
    sizes = {"hidden": 4, "layers": 1, "vocabulary": 16, "exact": True}
    case = bench.Case("kto", "kto", 3, 1, 1, batch=1, steps=1, warmup=0, **sizes)
    weights = 4 * 4 * 4 + 3 * 4 * 12
    keys, second = 1 + 2 + 3 + 4 + 5, 4 + 5
    read = 4 * (2 * 5 * weights + 4 * 4 * keys) + 2 * (2 * 2 * weights + 4 * 4 * second)
    assert sum(product.flops for product in limit.necessary(case)) == read + 6 * 2 * 2 * 4 * 16


def test_the_page_names_the_machine_and_every_row(bench: Any, case: Any, tmp_path: Path) -> None:
    report = importlib.import_module("bench_report")
    runs = [{"cpu": 1.0, "wall": 1.0, "gflop": 1.0}], [{"cpu": 2.5, "wall": 3.0, "gflop": 1.0}]
    for peer in ("trl", "limit"):
        bench.add_rows(tmp_path, [bench.row_of(case, peer, *runs, {"alignlab": 1, "trl": 1})])
    report.write_report(tmp_path, bench.read_table(tmp_path))
    page = (tmp_path / "README.md").read_text()
    assert "| dpo-small | trl | 2.50 | 2.5-2.5 |" in page
    assert "| dpo-small | limit | 2.50 |" in page
    assert "instructions for bfloat16" in page
    assert (tmp_path / "ratios.png").stat().st_size > 1000


def test_each_size_of_the_sweep_includes_the_base(bench: Any, tmp_path: Path) -> None:
    """GRPO's cases, of several completions, have no base; ratios are those of TRL alone."""
    report = importlib.import_module("bench_report")
    for ratio, each in enumerate(bench.SWEEP, start=1):
        runs = [{"cpu": 1.0, "wall": 1.0}], [{"cpu": float(ratio), "wall": 1.0}]
        rows = [bench.row_of(each, peer, *runs, {}) for peer in ("trl", "limit")]
        bench.add_rows(tmp_path, rows)
    rows = bench.read_table(tmp_path)
    found = report.swept(rows)
    ratios = {size: [float(row["cpu_ratio"]) for _, row in own] for size, own in found.items()}
    assert ratios == {
        "prompt": [1, 2, 3],
        "completion": [4, 2, 5],
        "k": [12, 13],
        "batch": [6, 2, 7],
        "vocabulary": [8, 2, 9],
        "width": [10, 2, 11],
    }
    assert [value for value, _ in found["width"]] == [64, 256, 512]
    report.draw_sweep(tmp_path / "sweep.png", rows)
    assert (tmp_path / "sweep.png").stat().st_size > 1000
    report.draw_sweep(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()


@pytest.mark.slow  # two processes that import all they need
def test_the_same_training_on_all_sides(bench: Any, case: Any) -> None:
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(bench.started(name)) for name in ("alignlab", "trl", "plain")
        }
        rows = bench.compared(case, sides, 1)
    assert [row["peer"] for row in rows] == ["trl", "plain"]
    assert all(row["cpu_ratio"] > 0 and row["ours_peak_mb"] >= 0 for row in rows)
