"""The figure: what it shows, and that equal tables give equal files."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from alignlab.report.figure import PALETTE, _draw, _vertical, draw_frontier, style
from alignlab.results.tables import FrontierRow, Point


def make_rows(names: tuple[str, ...]) -> list[FrontierRow]:
    rows = []
    for i, name in enumerate(names):
        for budget in (0.25, 1.0, 3.0):
            reward = 2 * budget**0.5 - 0.1 * i if name != "reference" else 0.0
            rows.append(
                FrontierRow(
                    objective=name,
                    kl_budget=budget,
                    reward=reward,
                    reward_lo=reward - 0.1,
                    reward_hi=reward + 0.1,
                    n_seeds=3,
                    n_prompts=64,
                )
            )
        rows.append(FrontierRow(objective=name, kl_budget=10.0))
    return rows


def make_point(kl: float, reward: float, objective: str = "dpo") -> Point:
    return Point(
        experiment="toy",
        objective=objective,
        run_id="r",
        seed=0,
        step=1,
        hparams={},
        kl=kl,
        kl_se=0.0,
        kl_k1=kl,
        kl_k1_se=0.0,
        reward=reward,
        reward_se=0.0,
        proxy_reward=None,
        length=9.0,
        n_prompts=64,
        n_samples=64,
        config_sha="",
        git_sha="",
        seconds=0.0,
    )


NAMES = ("dpo", "ppo", "ppo_gt", "best_of_n", "best_of_n_gt", "oracle", "reference")


def texts(path: Path) -> str:
    """Matplotlib leaves each text as a comment above its outline."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return "|".join(str(e.text).strip() for e in root.iter(ElementTree.Comment))  # type: ignore[arg-type]


def test_all_curves_are_named_and_files_repeat(tmp_path: Path) -> None:
    points = [make_point(0.5, 1.0), make_point(2.0, 2.5, "ppo")]
    made = draw_frontier(make_rows(NAMES), points, tmp_path, title="toy", reward_label="logit")
    assert [path.name for path in made] == ["frontier.png", "frontier.svg"]
    said = texts(made[1])
    for words in ("dpo (3 seeds)", "ppo_gt (3 seeds)", "best_of_n_gt", "oracle", "toy", "logit"):
        assert f"|{words}|" in f"|{said}|"
    once = [path.read_bytes() for path in made]
    again = draw_frontier(make_rows(NAMES), points, tmp_path, title="toy", reward_label="logit")
    assert [path.read_bytes() for path in again] == once
    assert once[0].startswith(b"\x89PNG")
    assert b"<dc:date>" not in once[1]


def test_a_collapsed_run_does_not_squeeze_the_axis_and_is_counted(tmp_path: Path) -> None:
    rows = make_rows(NAMES)
    points = [make_point(0.5, 1.0), make_point(2.0, -40.0), make_point(2.5, -50.0)]
    bottom, top = _vertical(rows, points, right=3.2)
    assert -0.5 < bottom < 0
    assert 3.4 < top < 5
    path = draw_frontier(rows, points, tmp_path)[1]
    assert "(2 below the axis)" in texts(path)


@pytest.mark.parametrize("names", [("oracle", "reference"), ("reference",)])
def test_few_curves_draw_too(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert all(path.exists() for path in draw_frontier(make_rows(names), [], tmp_path))


def test_colours_are_distinct_and_those_of_the_usual_three_fixed() -> None:
    many = ["dpo", "ipo", "ppo", "ppo_gt", "simpo", "zpo"]
    assert len({style(name, many)[0] for name in many}) == len(many)
    assert style("ppo", many) == style("ppo", ["ppo"])
    crowd = [f"arm{i}" for i in range(21)]
    assert len({style(name, crowd)[::2] for name in crowd}) == len(crowd)  # lines differ
    assert len({style(name, crowd)[:2] for name in crowd}) == len(crowd)  # and so do marks
    assert style("dpo", many)[0] == PALETTE[0]
    assert np.all([style(name, many) == style(name, many[::-1]) for name in ("dpo", "ppo_gt")])


def test_many_objectives_get_a_panel_each(tmp_path: Path) -> None:
    many = tuple(f"arm{i}" for i in range(9))
    points = [make_point(0.5, 1.0, name) for name in many]
    rows = make_rows((*many, "best_of_n", "oracle", "reference"))
    rows.append(FrontierRow(objective="never_far", kl_budget=0.25))  # no curve, yet a panel
    made = draw_frontier(rows, points, tmp_path, title="toy", reward_label="logit")
    said = texts(made[1]).split("|")
    for name in (*many, "never_far"):
        assert said.count(name) == 1, name
    assert "oracle" not in said
    once = [path.read_bytes() for path in made]
    made = draw_frontier(rows, points, tmp_path, title="toy", reward_label="logit")
    assert [path.read_bytes() for path in made] == once


def test_a_wide_band_does_not_press_the_panels_flat(tmp_path: Path) -> None:
    many = tuple(f"arm{i}" for i in range(9))
    narrow = make_rows((*many, "reference"))
    wide = [
        replace(row, reward_hi=500.0) if row.objective == "arm3" and row.reward else row
        for row in narrow
    ]
    for name, rows in (("narrow", narrow), ("wide", wide)):
        draw_frontier(rows, [], tmp_path / name)
    numbers = [
        [word for word in texts(tmp_path / n / "frontier.svg").split("|") if word[0].isdigit()]
        for n in ("narrow", "wide")
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("name", ["$x", "a$b$c", "$\\frac{$", "a$^_$b", "100%#&~", "\\sqrt{"])
def test_names_are_text_whatever_signs_stand_in_them(name: str, tmp_path: Path) -> None:
    """Dollar signs begin formulas in matplotlib, which end a figure where they are none."""
    rows = make_rows((name, "oracle", "reference"))
    points = [make_point(0.5, 1.0, name)]
    paths = draw_frontier(rows, points, tmp_path, title=f"{name}: runs", reward_label=name)
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    assert paths[0].stat().st_size > 10_000


def test_a_name_with_an_underscore_first_stands_in_the_legend(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots()
    _draw(axes, make_rows(("_hidden", "reference")), [make_point(0.5, 1.0, "_hidden")])
    labels = axes.get_legend_handles_labels()[1]
    plt.close(figure)
    assert labels == [" _hidden (3 seeds)", "reference"]
