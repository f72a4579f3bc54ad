"""The pages: their links lead somewhere; their tables of results are those of committed runs."""

import re
from pathlib import Path

import pytest

from alignlab.results.tables import FrontierRow, read_frontier

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/LOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)")
NAMES = {
    "DPO": "dpo",
    "PPO, learned reward": "ppo",
    "PPO, gold reward": "ppo_gt",
    "best-of-n, learned reward": "best_of_n",
    "best-of-n, gold reward": "best_of_n_gt",
}


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {re.sub(" +", "-", title.strip()) for title in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in LINK.findall(page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{target} does not exist"
        if heading:
            assert heading in anchors(path), f"{target}#{heading}: no such heading"


def table(heading: str) -> dict[str, dict[float, str]]:
    """Cells of the table below a heading of docs/results.md, by name and KL."""
    section = (ROOT / "docs" / "results.md").read_text().split(f"\n## {heading}\n")[1]
    lines = [line for line in section.split("\n## ")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    budgets = [float(cell) for cell in rows[0][1:]]
    return {NAMES[name]: dict(zip(budgets, cells, strict=True)) for name, *cells in rows[2:]}


@pytest.mark.parametrize(
    ("heading", "run", "value"),
    [
        ("The quickstart", "quickstart-reference", "oracle_efficiency"),
        ("Film reviews", "imdb-small", "reward"),
    ],
)
def test_a_table_says_what_the_run_found(heading: str, run: str, value: str) -> None:
    found = {
        (row.objective, row.kl_budget): row
        for row in read_frontier(ROOT / "results" / run / "frontier.csv")
    }
    low = "efficiency_lo" if value == "oracle_efficiency" else "reward_lo"
    for name, cells in table(heading).items():
        for budget, cell in cells.items():
            check(cell, found[name, budget], value, low)


def check(cell: str, row: FrontierRow, value: str, low: str) -> None:
    """A cell has the row's value and half of its interval, or says that there is none."""
    if cell in ("", "not reached"):
        assert getattr(row, value) is None
        return
    number, *half = (float(part) for part in cell.removesuffix(" (two seeds)").split(" ± "))
    assert number == pytest.approx(getattr(row, value), abs=0.0051)
    assert cell.endswith(" (two seeds)") == (row.n_seeds == 2)
    for width in half:
        assert width == pytest.approx(getattr(row, value) - getattr(row, low), abs=0.0051)
