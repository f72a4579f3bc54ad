"""The parts of the page."""

from dataclasses import replace
from pathlib import Path

from alignlab.report.look import Look
from alignlab.report.page import write_page
from alignlab.report.sections import sections
from alignlab.report.table import FEWER
from alignlab.results.notes import Note, Remarks
from tests.report.test_page import TRIALS, findings, read, row
from tests.report.test_win_rates import ROW as WIN_RATE


def test_completions_stand_beside_the_references_and_cannot_run(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    page, data = read(tmp_path / "report.html")
    assert data["samples"] == {
        "dpo-s0, step 20": [
            {"prompt": "p0", "text": "</script><script>alert(1)</script>", "reward": "1.5"}
        ]
    }
    assert data["prompts"]["p0"] == {
        "text": "A film", "reference": {"text": "dull", "reward": "-0.5"},
    }  # fmt: skip
    assert "alert(1)" not in "".join(text for _, text in page.scripts[1:])


def test_trials_that_did_not_complete_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    page, _ = read(tmp_path / "report.html")
    at = page.cells.index("diverged")
    row = ["3", "diverged", "dpo", "beta 0.1, lr None", "dpo-beta0.1-s0: loss is <b>not finite"]
    assert page.cells[at - 1 : at + 4] == row
    write_page(tmp_path / "report.html", findings(trials=[]))
    assert "did not complete" not in (tmp_path / "report.html").read_text()


def test_parameters_whose_short_names_are_alike_keep_their_whole_ones(tmp_path: Path) -> None:
    trial = TRIALS[0] | {"params": '{"a.lr": 1, "b.lr": 2}'}
    write_page(tmp_path / "report.html", findings(trials=[trial]))
    assert "a.lr 1, b.lr 2" in read(tmp_path / "report.html")[0].cells


def test_a_difference_that_is_not_resolved_has_the_prompts_that_would(tmp_path: Path) -> None:
    """(1.96 + 0.8416)^2 (3 / 0.3)^2 = 784.9 by the normal, and 787 by Student's t."""
    write_page(tmp_path / "report.html", findings())
    cells = read(tmp_path / "report.html")[0].cells
    at, other = cells.index("dpo above"), cells.index("cannot tell")
    assert (cells[at + 3], cells[other + 3]) == ("-", "787 prompts")


def test_notes_stand_beside_their_runs(tmp_path: Path) -> None:
    remarks = {"dpo-s1": Remarks([Note("is <b>odd", "2026-11-28", "c")], ["hacked"])}
    write_page(tmp_path / "report.html", findings(remarks=remarks))
    cells = read(tmp_path / "report.html")[0].cells
    at = cells.index("dpo-s1")
    assert cells[at + 7] == "#hacked; is <b>odd"
    assert "notes</th>" in (tmp_path / "report.html").read_text()
    write_page(tmp_path / "report.html", findings())
    assert "notes</th>" not in (tmp_path / "report.html").read_text()


def test_tables_say_the_same_as_text(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    page, _ = read(tmp_path / "report.html")
    for cell in (
        "dpo above",
        "cannot tell",
        "0.3 [0.1, 0.5]",
        "0.87",
        "1.25 ± 0.10",
        "2 ± 0.2",
    ):
        assert cell in page.cells
    text = (tmp_path / "report.html").read_text()
    assert "toy &lt;b&gt;" in text
    assert "model: &lt;x&gt;" in text


def test_win_rates_are_listed_where_there_are_some(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    assert "Win rates" not in (tmp_path / "report.html").read_text()
    write_page(tmp_path / "report.html", findings(win_rates=[WIN_RATE]))
    cells = read(tmp_path / "report.html")[0].cells
    at = cells.index("55.0 [48.0, 62.0]")
    assert cells[at - 4 : at + 4] == [
        *("dpo", "chosen", "0.5", "gpt", "55.0 [48.0, 62.0]", "52.0 [44.0, 60.0]", "1", "256")
    ]


def test_a_frontier_has_a_row_per_objective_and_a_column_per_budget(tmp_path: Path) -> None:
    rows = [
        replace(row(name, budget, reward), n_seeds=3, oracle_efficiency=reward / 4,
                efficiency_lo=reward / 4 - 0.01, efficiency_hi=reward / 4 + 0.01)
        for name, reward in (("dpo", 1.0), ("ppo", 1.5), ("oracle", 4.0), ("reference", 0.0))
        for budget in (0.5, 1.0)
    ]  # fmt: skip
    rows[0] = replace(rows[0], n_seeds=2)
    look = Look(names={"ppo": "PPO <b>"}, arms=("ppo", "dpo", "oracle"), budgets=(1.0, 0.5))
    frontier, shares, *others = sections(findings(rows=rows, look=look), rows)
    assert list(frontier.columns) == ["objective", "KL 0.5", "KL 1"]
    assert frontier.cells == [
        ["PPO <b>", "1.50 ± 0.10", "1.50 ± 0.10"],
        ["dpo", "1.00 ± 0.10 (2)", "1.00 ± 0.10"],
        ["oracle", "4.00 ± 0.10", "4.00 ± 0.10"],
    ]
    assert frontier.bold == shares.bold == {(0, 1), (0, 2)}
    assert frontier.caption.endswith(FEWER)
    assert [cells[0] for cells in shares.cells] == ["PPO <b>", "dpo"]
    assert shares.cells[0][1] == "0.375 ± 0.010"
    write_page(tmp_path / "report.html", findings(rows=rows, look=look))
    text = (tmp_path / "report.html").read_text()
    assert '<td class="text">PPO &lt;b&gt;</td><td class=" bold">1.50 ± 0.10</td>' in text
    above = next(section for section in others if section.title == "Which is above which")
    assert above.cells[0][0] == "dpo - PPO <b>"
    only = sections(findings(rows=rows, look=Look(arms=("dpo",))), rows)
    assert "Which is above which" not in [section.title for section in only]
