"""The dot plot: what stands where, and equal files."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.report import dots
from alignlab.report.dots import draw_dots
from alignlab.report.look import Look
from alignlab.results.tables import OwnOptimum
from tests.report.test_study import row

ROWS = [row("dpo", 0.9), row("kto", 0.7), row("ppo", 0.95), row("oracle", 1.0, 0.0)]
OWN = [OwnOptimum(objective="kto", kl_budget=1.0, share=0.8)]


def test_objectives_are_sorted_and_the_optimum_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def keep(figure: Any, path: Path, dpi: int) -> Path:
        drawn.append(figure)
        return path

    monkeypatch.setattr(dots, "save", keep)
    paths = draw_dots(ROWS, OWN, "dpo", tmp_path, Look(names={"ppo": "PPO"}))
    assert [path.name for path in paths] == ["shares.png", "shares.pdf"]
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kto", "dpo", "PPO"]
    lines = [line.get_xydata().tolist() for line in axes.lines]
    assert [[0.7, 0.0]] in lines
    assert [[0.8, 0.0]] in lines  # its own optimum
    assert [[pytest.approx(0.85), 1.0], [pytest.approx(0.95), 1.0]] in lines
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (
        pytest.approx(0.85), pytest.approx(0.95),
    )  # fmt: skip
    assert drawn[0].get_size_inches()[0] == 3.25


def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    paths = draw_dots(ROWS, OWN, "dpo", tmp_path)
    once = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in draw_dots(ROWS, OWN, "dpo", tmp_path)] == once


def test_nothing_at_this_kl_is_no_figure(tmp_path: Path) -> None:
    assert draw_dots([row("dpo", 0.9, budget=2.0)], [], "dpo", tmp_path) == []
    assert not list(tmp_path.iterdir())
