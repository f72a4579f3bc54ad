"""All results folders on one page: its cells against numbers by hand, its filter in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from alignlab.report.catalogue import write_catalogue
from alignlab.results.notes import Note, add_remark
from tests.records.conftest import write_toy
from tests.report.browser import chromium
from tests.report.test_page import Elements


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two folders of results: one with runs, and one without a table of points."""
    toy = write_toy(tmp_path / "toy")
    (toy / "report.html").touch()
    add_remark(toy, "dpo-beta0.5-s1", Note("is <b>bold", "2026-11-28", "c"), ["hacked"])
    (tmp_path / "bare" / "configs").mkdir(parents=True)
    write_catalogue(tmp_path / "catalogue.html", [tmp_path / "bare", toy])
    return tmp_path


def test_experiments_arms_and_runs_have_their_numbers(results: Path) -> None:
    """Rewards 2 and 2.5 of two seeds: mean 2.25, standard deviation 0.354; all end at KL 2."""
    page = results / "catalogue.html"
    text = page.read_text()
    assert "2 results folders" in text
    assert '<a href="toy/report.html">toy</a>' in text
    cells = Elements()
    cells.feed(text)

    def row(*begin: str) -> list[str]:
        own = cells.cells
        at = next(i for i in range(len(own)) if tuple(own[i : i + len(begin)]) == begin)
        return own[at : at + 8]

    assert row("bare")[:7] == ["bare", "no points.csv", "-", "0", "-", "-", "-"]
    assert row("toy", "toy", "dpo")[3:7] == ["4", "0, 1", "0.925 [0.900, 0.950] at 1", "2.5 at 2"]
    assert row("toy", "toy", "ppo")[3:7] == ["1", "0", "-", "1 at 2"]
    assert row("toy", "dpo", "beta 0.5")[3:7] == ["0, 1", "2 ± 0", "2.25 ± 0.35", "#hacked"]
    assert row("toy", "ppo", "-")[3:7] == ["0", "2", "1", "-"]
    assert row("toy", "dpo-beta0.5-s1") == [
        "toy", "dpo-beta0.5-s1", "1", "20", "2 ± 0", "2.5 ± 1.3", "1234567890ab",
        "#hacked; is <b>bold",
    ]  # fmt: skip
    assert "<b>" not in text


def test_folders_without_runs_are_listed(tmp_path: Path) -> None:
    (tmp_path / "bare" / "configs").mkdir(parents=True)
    assert write_catalogue(tmp_path / "catalogue.html", [tmp_path / "bare"]) == 1
    cells = Elements()
    cells.feed((tmp_path / "catalogue.html").read_text())
    assert cells.cells[:3] == ["bare", "no points.csv", "-"]


def test_equal_tables_give_an_equal_page(results: Path) -> None:
    before = (results / "catalogue.html").read_bytes()
    assert write_catalogue(results / "catalogue.html", [results / "bare", results / "toy"]) == 2
    assert (results / "catalogue.html").read_bytes() == before


@pytest.fixture(params=[1280, 390])
def page(results: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page at a desktop's and a phone's width; whatever it complains of or asks for fails."""
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": request.param, "height": 844}, offline=True)
        heard = list[str]()
        opened.on("console", lambda message: heard.append(message.text))
        opened.on("pageerror", lambda error: heard.append(str(error)))
        opened.on("request", lambda asked: heard.append(asked.url))
        address = (results / "catalogue.html").as_uri()
        opened.goto(address)
        yield opened
        assert heard == [address]


@pytest.mark.slow
def test_words_filter_the_rows_of_all_tables(page: Page) -> None:
    shown = page.locator("tbody tr:visible")
    expect(shown).to_have_count(3 + 3 + 5)
    page.get_by_label("Filter rows").fill("dpo BETA 1-s")
    expect(shown).to_have_count(2)
    expect(page.locator("#count")).to_have_text("2 of 11 rows")
    page.get_by_label("Filter rows").fill("#hacked")
    expect(shown).to_have_count(2)
    page.get_by_label("Filter rows").fill("dpo-beta0.5-s1")
    expect(shown).to_have_count(1)
    page.keyboard.press("Enter")
    page.get_by_label("Filter rows").fill("")
    expect(shown).to_have_count(11)
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0  # tables scroll by themselves
