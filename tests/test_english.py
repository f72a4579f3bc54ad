"""Phrases that a busy reader has to read twice; CONTRIBUTING.md says what to write instead."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = (
    "It is so",
    "belongs? into",
    "is said to be",
    "said to (be|have)",
    "for want of",
    "so many(?! (that|as))",
    "stands? in(?! for)",
    "stands? (here|there)",
    "(is|are) told(?! apart)",
    "tells of",
    "told once",
    r"(?<![.\w(])trainings(?![\w(.:,]| =| import)",
    r"a training(?=[.,;:)]| (is|that|of|in|on|and|or|may|has|ends|goes|which|with|to|from)\b)",
    "whoever",
    "laid over",
    "is another's",
    "(makes|made) it again",
    "of like length",
    "will do for",
    "none any more",
    "has in hand",
    "a matter of",
    "in the place of",
    "the same of",
    "gone on with",
    "says? of itself",
    "(is|are) what (it|they) (was|were)",
    "if it keeps its word",
)
PHRASE = re.compile(
    r"\b(?:" + "|".join(words.replace(" ", r"\s+(?:#\s*)?") for words in BANNED) + r")",
    re.IGNORECASE,
)
NEGATIVE = "CONTRIBUTING.md"  # has a table of sentences that are to be rewritten
SUFFIXES = (".md", ".yaml", ".py")


def pages() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", *(f"*{suffix}" for suffix in SUFFIXES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.splitlines() if name != f"tests/{Path(__file__).name}"]


@pytest.mark.parametrize("name", pages())
def test_no_banned_phrase(name: str) -> None:
    text = (ROOT / name).read_text()
    if name == NEGATIVE:
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())}"
        for match in PHRASE.finditer(text)
    ]
    assert found == []


def test_phrases_are_found_across_lines_and_comments() -> None:
    assert PHRASE.search("the run is\n    # told of it")
    assert PHRASE.search("What stands\nin the file")
    assert not PHRASE.search("a training step, so many that it stands in for others")
