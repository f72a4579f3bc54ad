"""The figure: what it shows, and that equal tables give equal files."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from alignlab.errors import ConfigError
from alignlab.report.figure import (
    PALETTE,
    _draw,
    _one_or_two,
    _panels,
    _vertical,
    draw_frontier,
    style,
)
from alignlab.report.look import EVERYTHING, Look
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
    assert [path.name for path in made] == ["frontier.png", "frontier.svg", "frontier.pdf"]
    said = texts(made[1])
    for words in ("dpo (3 seeds)", "ppo_gt (3 seeds)", "best_of_n_gt", "oracle", "toy", "logit"):
        assert f"|{words}|" in f"|{said}|"
    once = [path.read_bytes() for path in made]
    again = draw_frontier(make_rows(NAMES), points, tmp_path, title="toy", reward_label="logit")
    assert [path.read_bytes() for path in again] == once
    assert once[0].startswith(b"\x89PNG")
    assert b"<dc:date>" not in once[1]
    assert b"/Type42" in once[2] or b"/CIDFontType2" in once[2]  # whole TrueType fonts
    assert b"/FontType 3" not in once[2]
    assert b"/Type3" not in once[2]
    assert b"/CreationDate" not in once[2]


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


@pytest.mark.parametrize(("farthest", "shown"), [(3.0, "0 0.5 1 2 3"), (20.0, "0 1 3 5 10 20")])
def test_numbers_below_panels_do_not_overlap(farthest: float, shown: str) -> None:
    from matplotlib import pyplot as plt

    rows = make_rows((*(f"arm{i}" for i in range(9)), "reference"))
    rows += [replace(row, kl_budget=farthest) for row in rows if row.kl_budget == 3.0]
    figure, _ = _panels(plt, rows, [], "logit", EVERYTHING)
    figure.canvas.draw()
    labels = [label for label in figure.axes[8].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    plt.close(figure)
    assert [label.get_text() for label in labels] == shown.split()
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_a_panel_says_how_far_its_curve_goes_on() -> None:
    from matplotlib import pyplot as plt

    rows = make_rows((*(f"arm{i}" for i in range(9)), "oracle"))
    rows.append(replace(rows[0], kl_budget=20.0, reward=1.0))
    figure, _ = _panels(plt, rows, [], "logit", EVERYTHING)
    heads = [axes.get_title(loc="left") for axes in figure.axes[:9]]
    end = figure.axes[0].get_xlim()[1]
    plt.close(figure)
    assert heads == ["arm0 (to KL 20)", *(f"arm{i}" for i in range(1, 9))]
    assert end == pytest.approx(2 * 3.0)


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


def drawn(
    rows: list[FrontierRow], look: Look = EVERYTHING, points: tuple[Point, ...] = ()
) -> Iterator[Any]:
    """The figure's panels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, _ = _one_or_two(plt, rows, points, "logit", look)
    figure.draw_without_rendering()
    yield from figure.axes
    plt.close(figure)


def test_a_band_is_cut_where_seeds_drop_out_and_the_line_is_not() -> None:
    seeds = {0.25: 3, 1.0: 3, 3.0: 2}
    rows = [
        replace(row, n_seeds=seeds.get(row.kl_budget, 0)) if row.objective == "dpo" else row
        for row in make_rows(("dpo", "reference"))
    ]
    (axes,) = drawn(rows, points=(make_point(0.5, 1.0),))
    bands = [band for band in axes.collections if band.get_zorder() == 1.5]
    ends = [sorted({x for path in band.get_paths() for x in path.vertices[:, 0]}) for band in bands]
    assert ends == [[0.0, 0.25, 1.0], [3.0]]
    line = next(line for line in axes.lines if line.get_label() == "dpo (3 seeds)")
    assert list(line.get_xdata()) == [0.0, 0.25, 1.0, 3.0]


def with_shares(names: tuple[str, ...]) -> list[FrontierRow]:
    return [
        replace(row, oracle_efficiency=0.8, efficiency_lo=0.7, efficiency_hi=0.9)
        if row.reward is not None and row.kl_budget < 3
        else row
        for row in make_rows(names)
    ]


def test_the_second_panel_has_the_shares_of_all_that_have_some() -> None:
    look = Look(share=True, names={"dpo": "DPO, ours"})
    reward, share = drawn(with_shares(NAMES), look, (make_point(0.5, 1.0),))
    assert share.get_ylabel() == "share of the optimum's gain"
    labels = [line.get_label() for line in share.lines if not line.get_label().startswith("_")]
    names = ["DPO, ours (3 seeds)", "ppo (3 seeds)", "ppo_gt (3 seeds)"]
    assert labels == [*names, "best_of_n", "best_of_n_gt"]
    line = share.lines[0]
    assert list(line.get_xdata()) == [0.25, 1.0]  # no share at KL 0, and none at KL 3
    assert list(line.get_ydata()) == [0.8, 0.8]
    assert line.get_color() == reward.lines[0].get_color()
    assert share.get_xlim() == reward.get_xlim()


@pytest.mark.parametrize(("size", "width"), [("one-column", 3.25), ("two-column", 6.75)])
@pytest.mark.parametrize("share", [False, True])
def test_a_papers_figure_has_its_columns_width_and_axes_in_4_to_3(
    size: str, width: float, share: bool
) -> None:
    for axes in drawn(with_shares(NAMES), Look(size=size, share=share)):
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(4 / 3, rel=1e-3)
        assert axes.figure.get_figwidth() == width
        assert box.width / axes.figure.dpi > 0.6 * width / (1 + (share and size == "two-column"))
        assert axes.xaxis.label.get_fontsize() <= 10


def test_arms_are_drawn_in_their_order_up_to_the_largest_budget_chosen() -> None:
    look = Look(arms=("ppo", "dpo"), budgets=(0.25, 1.0))
    (axes,) = drawn(make_rows(NAMES), look, (make_point(0.5, 1.0), make_point(0.5, 1.0, "ppo_gt")))
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["ppo (3 seeds)", "dpo (3 seeds)"]
    assert axes.get_xlim() == (0, 1.05)
    assert list(axes.lines[0].get_xdata()) == [0.0, 0.25, 1.0]  # from the reference, not shown
    marks = [each for each in axes.collections if each.get_zorder() == 3.5]
    assert len(marks) == 1  # of dpo; ppo_gt is left out


def test_shares_that_are_not_known_or_have_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--share: the share .* is not known for any"):
        draw_frontier(make_rows(NAMES), [], tmp_path, look=Look(share=True))
    many = tuple(f"arm{i}" for i in range(9))
    with pytest.raises(ConfigError, match=r"room for 8 objectives\. Choose them by --arms"):
        draw_frontier(with_shares(many), [], tmp_path, look=Look(share=True))
