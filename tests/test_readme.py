"""The numbers of the README's table of objectives are those of the committed run."""

from pathlib import Path

import pytest

from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import read_frontier, read_points

ROOT = Path(__file__).parents[1]
RUN = ROOT / "results" / "quickstart-full"
ROWS = read_frontier(RUN / "frontier.csv")
TRAINED = sorted({row.objective for row in ROWS} - set(CURVES_WITHOUT_TRAINING))


def cells(name: str) -> list[str]:
    lines = [
        line.split(" | ")
        for line in (ROOT / "README.md").read_text().splitlines()
        if f"| `{name}` | `alignlab/objectives/" in line
    ]
    assert len(lines) == 1, f"one row for {name}"
    return lines[0][3:6]


@pytest.mark.parametrize("name", TRAINED)
def test_a_row_says_what_the_run_found(name: str) -> None:
    for said, budget in zip(cells(name), (0.5, 1.0, 2.0), strict=True):
        (row,) = [r for r in ROWS if (r.objective, r.kl_budget) == (name, budget)]
        assert said.endswith(" (two seeds)") == (row.n_seeds == 2)
        if row.oracle_efficiency is None:
            assert said == "–"
        else:
            value, half = (float(word) for word in said.removesuffix(" (two seeds)").split(" ± "))
            assert value == pytest.approx(row.oracle_efficiency, abs=0.0051)
            assert row.efficiency_lo is not None
            assert row.efficiency_hi is not None
            assert half == pytest.approx((row.efficiency_hi - row.efficiency_lo) / 2, abs=0.0051)


def test_every_objective_was_run_with_three_seeds() -> None:
    seeds = {(point.objective, point.seed) for point in read_points(RUN / "points.csv")}
    trained = {name for name, _ in seeds} & set(TRAINED)
    assert len(trained) >= 18
    assert seeds >= {(name, seed) for name in trained for seed in (0, 1, 2)}
