"""Pages share one head and style, escape what they show, and miss no value."""

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from alignlab.pages import rendered

PACKAGE = Path(__file__).parents[1] / "alignlab"
PAGES = [
    p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.html") if p.name != "base.html"
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_repeats_nothing_of_the_base(page: str) -> None:
    text = (PACKAGE / page).read_text()
    assert text.startswith('{% extends "base.html" %}\n')
    assert "<head>" not in text
    base = set((PACKAGE / "base.html").read_text().splitlines())
    assert {line for line in text.splitlines() if re.match(r"[\w.:#@]", line)} & base == set()


def test_a_text_is_escaped_and_a_missing_value_is_an_error() -> None:
    own = {"heads": ["<b>"], "sections": [], "examples": []}
    text = rendered("check_data/page.html", title="a & b", **own)
    assert text.count("<html") == text.count("</html>") == 1
    assert "<title>a &amp; b</title>" in text
    assert "<p>&lt;b&gt;</p>" in text
    assert "mark { background" in text
    with pytest.raises(UndefinedError, match="title"):
        rendered("check_data/page.html", **own)
