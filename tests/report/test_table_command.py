"""``alignlab table``: what is bold and why, and text that means something to LaTeX or Markdown."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.report.look import Look
from alignlab.report.table import FEWER, RULE, grid
from alignlab.report.table_command import add_arguments, as_latex, as_markdown, run
from alignlab.results.tables import Against, FrontierRow, OwnOptimum, write_rows
from tests.report.test_study import OWN, ROWS, TESTS


def row(objective: str, reward: float | None, half: float, seeds: int = 3) -> FrontierRow:
    empty = FrontierRow(objective=objective, kl_budget=1.0, n_seeds=seeds, n_prompts=64)
    if reward is None:
        return empty
    return replace(
        empty,
        reward=reward,
        reward_lo=reward - half,
        reward_hi=reward + half,
        oracle_efficiency=reward / 4,
        efficiency_lo=(reward - half) / 4,
        efficiency_hi=(reward + half) / 4,
    )


APART = [
    row("dpo", 2.0, 0.25),
    row("ppo", 2.5, 0.2),  # [2.3, 2.7] lies above [1.75, 2.25]
    row("best_of_n", 1.0, 0.01, seeds=1),  # nothing is trained, so one seed is all there is
    row("oracle", 3.0, 0.01, seeds=1),
    row("reference", 0.0, 0.01, seeds=1),
]


@pytest.mark.parametrize(
    ("rows", "bold"),
    [
        (APART, {(1, 0)}),
        ([row("dpo", 2.0, 0.31), *APART[1:]], set()),  # up to 2.31
        ([row("dpo", None, 0.1), *APART[1:]], {(1, 0)}),
        ([row("dpo", 2.0, 0.25, seeds=1), *APART[1:]], set()),
        ([APART[0], *APART[3:]], set()),  # alone: optimum and reference are no rivals
    ],
    ids=["apart", "touching", "one without value", "one seed", "alone"],
)
def test_a_cell_is_bold_only_if_its_interval_lies_above_all_others(
    rows: list[FrontierRow], bold: set[tuple[int, int]]
) -> None:
    assert grid(rows).bold == bold
    assert grid(rows, share=True).bold == bold


def test_the_arms_that_are_shown_decide_what_is_bold() -> None:
    assert grid(APART, Look(arms=("ppo", "oracle"))).bold == set()
    assert grid(APART, Look(arms=("best_of_n", "dpo"))).bold == {(1, 0)}


def test_latex_to_the_character() -> None:
    look = Look(names={"dpo": r"D_PO & \b^2", "ppo": "100% {~} #$"})
    fewer = [*APART[:3], replace(row("dpo", 2.5, 0.5, seeds=2), kl_budget=2.0)]
    assert as_latex(grid(fewer, look), "Reward.").splitlines() == [
        "% Reward.",
        r"\begin{tabular}{lrr}  % \usepackage{booktabs}",
        r"\toprule",
        r"KL (nats) & 1 & 2 \\",
        r"\midrule",
        r"D\_PO \& \textbackslash{}b\textasciicircum{}2 & $2.00 \pm 0.25$ & $2.50 \pm 0.50$ (2) \\",
        r"100\% \{\textasciitilde{}\} \#\$ & $\mathbf{2.50 \pm 0.20}$ & -- \\",
        r"best\_of\_n & $1.00 \pm 0.01$ & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_markdown_to_the_character() -> None:
    look = Look(names={"ppo": "a|b *c* <i> [x](y)"}, arms=("ppo", "dpo"))
    assert as_markdown(grid(APART, look, share=True), "Share.").splitlines() == [
        "| KL (nats) | 1 |",
        "| --- | ---: |",
        r"| a\|b \*c\* \<i> \[x](y) | **0.625 ± 0.050** |",
        "| dpo | 0.500 ± 0.062 |",
        "",
        "Share.",
    ]


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_the_command_reads_what_was_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"no such table\. It is made with: alignlab frontier "):
        call(str(tmp_path), "--latex")
    drawn = [*APART, replace(row("dpo", 2.5, 0.5, seeds=2), kl_budget=1.2345)]
    write_rows(tmp_path / "curves.csv", FrontierRow, drawn)
    assert call(str(tmp_path), "--markdown", "--arms", "ppo,dpo") == 0
    said = capsys.readouterr().out
    assert "| ppo | **2.50 ± 0.20** |" in said
    assert f"Reward within a KL budget, mean and half of its 95 % interval. {RULE}\n" in said
    assert call(str(tmp_path), "--markdown", "--budgets", "1,1.2345") == 0
    assert "| dpo | 2.00 ± 0.25 | 2.50 ± 0.50 (2) |" in (said := capsys.readouterr().out)
    assert FEWER in said
    assert call(str(tmp_path), "--name", "ppo=PPO") == 0
    assert "\nPPO        2.50±0.20" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--share chooses what --latex, --markdown or --into"):
        call(str(tmp_path), "--share")
    with pytest.raises(ConfigError, match=r"nothing was computed at KL 3\."):
        call(str(tmp_path), "--budgets", "3")


def called(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


README = """# Title
| file | content |
|---|---|
| `dpo` | is no objective here |

| objective | name | KL 1 | KL 2 | paper |
|---|---|---|---|---|
| [DPO](x.md) | `dpo` | 0.1 | 0.2 | one |
| mine | `mine` | stays | stays | two |
| PPO | `ppo` | – | 0.5 ± 0.1 | three |

| file | content | and | more |
|---|---|---|---|
| it | `dpo` | is no objective | here |
"""


def test_numbers_go_into_a_table_and_all_else_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(README)
    two = replace(row("ppo", 3.0, 0.5, seeds=2), kl_budget=2.0)
    rows = [*APART, two, replace(row("dpo", None, 0.1), kl_budget=2.0)]
    write_rows(tmp_path / "curves.csv", FrontierRow, rows)
    assert called(tmp_path, "--share", "--into", page) == 0
    expected = README.replace("0.1 | 0.2", "0.50 ± 0.06 | –").replace(
        "– | 0.5 ± 0.1", "0.62 ± 0.05 | 0.75 ± 0.12 (two seeds)"
    )
    assert page.read_text() == expected
    page.write_text("# No table\n| `dpo` | here |\n")
    with pytest.raises(DataError, match="no table with a column such as 'KL 1'"):
        called(tmp_path, "--into", page)


def test_the_readme_is_what_the_command_writes(tmp_path: Path) -> None:
    """The page's numbers are those of a committed run, to the character."""
    root = Path(__file__).parents[2]
    page = tmp_path / "README.md"
    shutil.copy(root / "README.md", page)
    assert called(root / "results" / "quickstart-full", "--share", "--into", page) == 0
    assert page.read_text() == (root / "README.md").read_text()


def test_the_tests_against_a_base_are_a_table_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "curves.csv", FrontierRow, ROWS)
    with pytest.raises(DataError, match=r"against.csv: no such table.*--base OBJECTIVE"):
        called(tmp_path, "--against")
    write_rows(tmp_path / "against.csv", Against, TESTS)
    write_rows(tmp_path / "own_optima.csv", OwnOptimum, OWN)
    called(tmp_path, "--against", "--markdown")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| at KL 1 | share of the gain | own optimum's share |")
    assert "| kto | 0.700 ± 0.050 | - | - | **-0.200 ± 0.050** | <0.001 | <0.001 | - |" in lines
    called(tmp_path, "--against", "--latex")
    said = capsys.readouterr().out
    assert r"kto & $0.700 \pm 0.050$ & -- & -- & $\mathbf{-0.200 \pm 0.050}$ & $<0.001$" in said
    called(tmp_path, "--against")
    assert "kto" in capsys.readouterr().out
