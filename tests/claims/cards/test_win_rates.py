"""Win rates over temperature, by hand."""

from pathlib import Path

import pytest

from alignlab.claims.card import SUMMARIES
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from tests.claims.decided import values, verdicts

PAIR = {"policy": "dpo-beta0.5", "other": "ppo-kl_target3.0-kl_coef1.0", "n_seeds": 3}


def row(value: float, half: float, **cells: object) -> dict[str, object]:
    ends = {"difference": value, "lo": value - half, "hi": value + half}
    return {**PAIR, "against": "completion", "minus_temperature": "", **ends, **cells}


def rate(temperature: float, value: float, half: float, **cells: object) -> dict[str, object]:
    own = {"policy": "best of n", "against": "completion", "temperature": temperature}
    return {**own, "rate": value, "lo": value - half, "hi": value + half, "n_seeds": 3, **cells}


@pytest.mark.parametrize(("change", "verdict"), [(0.3, HELD), (0.05, UNRESOLVED), (-0.3, FAILED)])
def test_changes_with_the_temperature(tmp_path: Path, change: float, verdict: str) -> None:
    rows = [
        row(0.9, 0.1, temperature=1.0),  # no change, but the rates at 1
        row(change, 0.1, temperature=1.0, minus_temperature=0.0),
        row(-0.9, 0.1, temperature=1.0, minus_temperature=0.0, against="sft"),
        row(-0.9, 0.1, temperature=1.0, minus_temperature=0.0, other="ppo_gt-kl_target3.0"),
    ]
    write_table(tmp_path / SUMMARIES / "winrate_differences.csv", rows, numbers=".6g")
    assert verdicts(tmp_path, "C3") == [verdict, NOT_RUN, NOT_RUN]
    assert values(tmp_path, "C3")[0] == pytest.approx(change)


def test_best_of_n_in_between(tmp_path: Path) -> None:
    """At 0.5 it is 0.6 within 0.03: above 0.5 within 0.04 (0.1 > 0.05), not above 0.58."""
    rows = [
        rate(0.0, 0.5, 0.04),
        rate(0.5, 0.6, 0.03),
        rate(1.0, 0.58, 0.04),
        rate(0.5, 0.1, 0.01, against="sft"),
        rate(0.0, 0.7, 0.04, policy="dpo-beta0.5"),
    ]
    write_table(tmp_path / SUMMARIES / "winrates.csv", rows, numbers=".6g")
    assert verdicts(tmp_path, "C3") == [NOT_RUN, HELD, UNRESOLVED]
    assert values(tmp_path, "C3")[1:] == pytest.approx([0.1, 0.02])
    assert verdicts(tmp_path, "C5")[-1] == HELD
    assert values(tmp_path, "C5")[-1] == pytest.approx(0.1)


def test_posts_of_elsewhere(tmp_path: Path) -> None:
    rows = [
        row(0.2, 0.1, temperature=0.0),
        row(-0.2, 0.1, temperature=0.25),
        row(0.9, 0.1, temperature=1.0),
    ]
    path = tmp_path / SUMMARIES / "elsewhere" / "winrate_differences.csv"
    write_table(path, rows, numbers=".6g")
    assert verdicts(tmp_path, "C4") == [HELD, FAILED]
    assert values(tmp_path, "C4") == pytest.approx([0.2, -0.2])
