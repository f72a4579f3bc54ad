"""What is enumerated, counted or timed."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from alignlab.claims import exact
from alignlab.claims.card import OURS
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import read_table, write_table
from tests.claims.decided import values, verdicts


def test_exact_tables(tmp_path: Path) -> None:
    exact.write_exact_tables(out=tmp_path / OURS)
    for card in ("C15", "C19", "C20", "C23"):
        assert set(verdicts(tmp_path, card)) == {HELD}, card
    assert verdicts(tmp_path, "C25") == [HELD, NOT_RUN]
    rows = {path.stem: len(read_table(path)) for path in (tmp_path / OURS).glob("*.csv")}
    assert rows == {
        "estimators": 16,
        "best_of_n": 8,
        "two_arms": 6,
        "controller": 6,
        "gap": 10,
        "memory": 2,
    }


@pytest.mark.parametrize(("gap", "verdict"), [(9e-6, HELD), (2e-5, FAILED)])
def test_layouts(tmp_path: Path, gap: float, verdict: str) -> None:
    row = {"logp_difference": gap, "gradient_difference": gap / 10}
    write_table(tmp_path / OURS / "layouts.csv", [row])
    assert verdicts(tmp_path, "C22") == [verdict, HELD, NOT_RUN]


@pytest.mark.parametrize(
    ("flat", "verdict"), [((3.6, 2.5), HELD), ((1.08, 0.96), FAILED), ((1.6, 2.0), UNRESOLVED)]
)
def test_speed_of_sharing(tmp_path: Path, flat: tuple[float, float], verdict: str) -> None:
    """Counted: 2 x 90 / (80 + 2 x 10) = 1.8 and 4 x 20 / (10 + 4 x 10) = 1.6; two of each shape."""
    rows: list[dict[str, Any]] = [{"part": "growth", "what": "prompt", "value": 0.7}]
    for shape, seconds in zip(("(80, 10, 2, {})", "(10, 10, 4, {})"), flat, strict=True):
        own = {"auto": 1.0, "flat": seconds, "packed": 9.0, "auto_over_best": 9.0}
        for prompts, (layout, value) in product((1, 8), own.items()):
            what = f"{shape.format(prompts)} {layout}"
            rows.append({"part": "layouts", "what": what, "value": value})
    write_table(tmp_path / "benchmarks" / "own.csv", rows)
    assert verdicts(tmp_path, "C22")[2] == verdict
    mean = (flat[0] / 1.8 + flat[1] / 1.6) / 2
    assert values(tmp_path, "C22")[2] == pytest.approx(mean)
