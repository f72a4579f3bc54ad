"""What the figure of the page holds."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.report.look import Look
from alignlab.report.page import write_page
from alignlab.report.traces import as_text, axes, share_traces, traces
from tests.report.test_page import findings, point, read, row


def test_the_figure_holds_every_checkpoint_and_what_is_said_of_it(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    _, data = read(tmp_path / "report.html")
    marks = {trace["name"]: trace for trace in data["traces"] if trace["mode"] == "markers"}
    assert marks["dpo"]["x"] == pytest.approx([0.1**0.5, 0.2**0.5] * 2, abs=1e-5)
    assert marks["ppo"]["customdata"][1] == "ppo-s0, step 20"
    assert (
        marks["dpo"]["text"][1] == "dpo-s0, step 20<br>beta 0.5<br>KL 0.2 ± 0.02<br>reward 2 ± 0.2"
    )
    groups = {
        t["legendgroup"]: t["name"] for t in data["traces"] if t["mode"] == "lines" and "name" in t
    }
    assert groups == {"dpo": "dpo (1 seed)", "ppo": "ppo (1 seed)", "oracle": "oracle",
                      "reference": "reference"}  # fmt: skip
    assert marks["dpo"]["marker"]["color"] != marks["ppo"]["marker"]["color"]
    assert marks["dpo"]["marker"]["symbol"] != marks["ppo"]["marker"]["symbol"]


ROWS = [
    replace(
        row("dpo", kl, kl), n_seeds=seeds, oracle_efficiency=share, efficiency_lo=0.5,
        efficiency_hi=0.75,
    )
    for kl, seeds, share in ((0.25, 3, 0.6), (1.0, 3, 0.7), (4.0, 2, None))
]  # fmt: skip
ROWS += [replace(row("oracle", 1.0, 2.0), oracle_efficiency=1.0), row("reference", 1.0, 0.0)]
POINTS = [point("dpo-s0", 10, kl=1.0, reward=1.0), point("ppo-s0", 10, kl=-0.04, reward=0.0)]


def test_curves_start_at_the_reference_and_bands_are_cut_where_seeds_drop_out() -> None:
    band, line, *others = traces(ROWS, POINTS, ["a", "b"], Look(names={"dpo": "D"}))
    assert line["x"] == [0.0, 0.5, 1.0, 2.0]
    assert line["y"] == [0.0, 0.25, 1.0, 4.0]
    assert line["text"] == ["0", "0.25", "1", "4"]
    assert line["name"] == "D (3 seeds)"
    assert band["x"] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, None, 2.0, 2.0, None]
    assert band["y"] == [0.0, 0.35, 1.1, 0.9, 0.15, 0.0, None, 4.1, 3.9, None]
    assert [trace["legendgroup"] for trace in others] == ["oracle", "reference", "dpo", "ppo"]
    assert others[1]["x"] == [1.0]
    assert others[3]["x"] == [-0.2]  # an estimate of KL may be below 0
    assert others[3]["customdata"] == ["b"]


def test_shares_are_of_trained_objectives_and_where_they_are_known() -> None:
    band, line = share_traces(ROWS, POINTS)
    assert (line["x"], line["y"]) == ([0.5, 1.0], [0.6, 0.7])
    assert band["y"] == [0.75, 0.75, 0.5, 0.5, None]
    assert share_traces(ROWS, POINTS, Look(arms=("oracle", "reference"))) == []


def test_arms_that_are_not_chosen_are_left_out() -> None:
    drawn = traces(ROWS, POINTS, ["a", "b"], Look(arms=("oracle", "dpo")))
    assert [trace["legendgroup"] for trace in drawn] == ["oracle", "dpo", "dpo", "dpo"]
    found = axes(ROWS, POINTS, Look(budgets=(0.5, 2.0)))
    assert found["x"] == [0.0, math.sqrt(2.1)]
    assert found["x_log"] == pytest.approx([math.log10(0.1) / 2 - 0.05, math.log10(2.1) / 2])
    assert dict(zip(found["tick_texts"], found["ticks"], strict=True))["0.25"] == 0.5


def test_names_have_no_meaning_for_the_figures_library() -> None:
    assert as_text("<b>%{x}&lt;") == "&lt;b&gt;%&#123;x}&amp;lt;"
    one = replace(POINTS[0], hparams={"<i>": "%{y}"})
    *_, marks = traces(ROWS, [one], ["<a>"], Look(names={"dpo": "<b>"}))
    assert marks["text"][0].startswith("&lt;a&gt;<br>&lt;i&gt; %&#123;y}<br>KL 1 ")
    assert (
        traces(ROWS, [one], ["a"], Look(names={"dpo": "<b>"}))[1]["name"] == "&lt;b&gt; (3 seeds)"
    )
