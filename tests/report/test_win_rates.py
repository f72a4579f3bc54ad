import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignlab.report.win_rates import (
    draw_win_rates,
    percent,
    read_win_rates,
    redraw_win_rates,
    win_rate_sentences,
    win_rate_table,
    write_win_page,
)
from alignlab.results.csv_tables import write_table
from alignlab.results.tables import WinRate, write_rows

ROW = WinRate(
    policy="dpo",
    against="chosen",
    temperature=0.5,
    judge="gpt",
    rate=0.55,
    lo=0.48,
    hi=0.62,
    wilson_lo=0.49,
    wilson_hi=0.61,
    wins=130,
    ties=21,
    losses=105,
    length_controlled=0.52,
    length_controlled_lo=0.44,
    length_controlled_hi=0.6,
    consistency=0.8,
    first_position=0.6,
    length=120.0,
    against_length=100.0,
    n_prompts=256,
    n_seeds=1,
    n_matches=256,
    left_out=0,
    prompts_needed=780,
    seeds_needed=None,
)


def test_the_figure_is_a_function_of_its_rows(tmp_path: Path) -> None:
    rows = [
        replace(ROW, policy=policy, against=other, temperature=t)
        for policy in ("dpo", "_p$x$")
        for other in ("chosen", "sft")
        for t in (0.0, 1.0)
    ][:-2]  # a policy may be missing from a panel
    files = [draw_win_rates(rows, tmp_path / name) for name in ("a", "b")]
    assert [path.name for path in files[0]] == ["winrate.png", "winrate.svg", "winrate.pdf"]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert files[0][2].read_bytes().startswith(b"%PDF")


def test_the_table_as_text() -> None:
    bare = replace(ROW, length_controlled=None, consistency=None, policy="a-long-name")
    lines = win_rate_table([ROW, bare]).split("\n")
    cells = ["55.0 [48.0, 62.0]", "52.0 [44.0, 60.0]", "8%  ", "80%"]
    assert lines[1] == "  ".join(["dpo        ", "chosen ", "0.5", *cells])
    assert lines[2].endswith("-                  8%    -")
    assert percent(0.5, None, 0.6) == "-"
    low = win_rate_table([replace(ROW, rate=rate, lo=0.01, hi=0.09) for rate in (0.049, 0.05)])
    assert [" floor" in line for line in low.split("\n")] == [False, True, False]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "not resolved at temperature 0.5 (needs 780 prompts)."),
        ({"seeds_needed": 1200}, "0.5 (needs 780 prompts or 1,200 seeds)."),
        ({"prompts_needed": None}, "not resolved at temperature 0.5."),
        ({"lo": 0.51, "wilson_lo": 0.51}, "dpo against chosen: above 50 % at temperature 0.5."),
        ({"rate": 0.4, "hi": 0.49, "wilson_hi": 0.49}, "below 50 % at temperature 0.5."),
        ({"lo": 1.0, "hi": 1.0, "rate": 1.0}, "not resolved"),  # few prompts that all agree
        ({"lo": 0.49, "wilson_lo": 0.51}, "not resolved"),
        ({"rate": 0.049, "lo": 0.0, "hi": 0.9}, "chosen: floor (below 5 %) at temperature 0.5."),
    ],
)
def test_a_difference_is_resolved_if_both_intervals_exclude_one_half(changed, sentence) -> None:
    (found,) = win_rate_sentences([replace(ROW, **changed)])
    assert sentence in found


def test_a_sentence_is_about_one_opponent_at_all_temperatures() -> None:
    above: dict[str, Any] = {"lo": 0.51, "wilson_lo": 0.51}
    rows = [replace(ROW, temperature=t, **(above if t < 1 else {})) for t in (0.0, 0.5, 1.0)]
    assert win_rate_sentences([*rows, replace(ROW, against="sft")]) == [
        "dpo against chosen: above 50 % at temperature 0, 0.5; not resolved at temperature 1 "
        "(needs 780 prompts).",
        "dpo against sft: not resolved at temperature 0.5 (needs 780 prompts).",
    ]


def test_a_fickle_judge_and_unreadable_replies_are_told() -> None:
    rows = [replace(ROW, consistency=0.4, first_position=0.9, left_out=12)]
    _, fickle, unread = win_rate_sentences(rows)
    assert "for 40% of the pairs only; the text shown first wins 90%." in fickle
    assert unread == "At temperature 0.5, 12 matches have no readable verdict."


def test_the_page_shows_texts_side_by_side_and_escapes_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "winrates.csv", WinRate, [ROW])
    assert read_win_rates(tmp_path) == [ROW]
    assert read_win_rates(tmp_path / "absent") == []
    text = {"prompt": "Why <b>?", "policy": "dpo", "against": "chosen", "temperature": 0.5}
    texts = [
        {"place": 7, **text, "completion": "late", "other": "x", "value": 0.5},
        {"place": 3, **text, "completion": "mine <i>", "other": "theirs", "value": 0.0},
        {"place": 7, **text, "completion": "late too", "other": "x", "value": 1.0},
    ]
    write_table(tmp_path / "winrate_texts.csv", texts)
    (tmp_path / "winrate.svg").write_text("<?xml?><svg/>")
    page = write_win_page(tmp_path).read_text()
    assert page.count("<details") == 2  # one a prompt
    assert page.index("mine &lt;i&gt;") < page.index(">late<") < page.index("late too")
    assert '<div class="lost">mine &lt;i&gt;</div><div class="won">theirs</div>' in page
    assert "against chosen: lost" in page
    assert "<b>" not in page
    assert "<svg" in page
    assert not re.search("(src|href)=.(?!data:|#)", page)  # it needs no network
    assert "55.0 [48.0, 62.0]" in page
    assert "130 / 21 / 105" in page


def test_a_folder_is_drawn_again_from_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A committed folder may lack the texts; one without win rates is left alone."""
    drawn = []

    def draw(rows: list[WinRate], out: Path) -> None:
        drawn.append(rows)
        (out / "winrate.svg").write_text("<svg/>")

    monkeypatch.setattr("alignlab.report.win_rates.draw_win_rates", draw)
    redraw_win_rates(tmp_path)
    assert drawn == []
    write_rows(tmp_path / "winrates.csv", WinRate, [ROW])
    redraw_win_rates(tmp_path)
    assert drawn == [[ROW]]
    assert not (tmp_path / "winrate.html").exists()
    text = {"place": 0, "prompt": "Why?", "policy": "dpo", "against": "chosen", "temperature": 0.5}
    texts = [text | {"completion": "a", "other": "b", "value": 1.0}]
    write_table(tmp_path / "winrate_texts.csv", texts)
    redraw_win_rates(tmp_path)
    assert "Why?" in (tmp_path / "winrate.html").read_text()
    (tmp_path / "elsewhere").mkdir()
    write_rows(tmp_path / "elsewhere" / "winrates.csv", WinRate, [ROW, ROW])
    redraw_win_rates(tmp_path)
    assert drawn[2:] == [[ROW], [ROW, ROW]]
    assert (tmp_path / "elsewhere" / "winrate.svg").exists()
