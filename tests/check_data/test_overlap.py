"""Shared rows, prompts and runs of words; counts by hand, and against sets of tuples."""

import random
from collections.abc import Sequence

import pytest

from alignlab.check_data import overlap as module
from alignlab.check_data.overlap import RARE, RUN, SHORTEST, Overlap, Passage, Runs, overlap
from alignlab.data.repeats import Repeats
from alignlab.data.rows import Demonstration, LabelledText, PreferencePair, Row, Turn


def compare(train: Sequence[Row], test: Sequence[Row]) -> Overlap:
    runs, repeats = Runs(), (Repeats(), Repeats())
    for place, row in enumerate(repeats[1].watch(test)):
        runs.hold(place, row)
    for place, row in enumerate(repeats[0].watch(train)):
        runs.look(place, row)
    return overlap(*repeats, runs)


def text(name: str, words: str) -> LabelledText:
    return LabelledText(name, words)


def words(first: int, last: int) -> str:
    return " ".join(f"w{k}" for k in range(first, last + 1))


def test_whole_rows_and_prompts() -> None:
    train = [PreferencePair("1", "p", "a", "b"), PreferencePair("2", "q", "a", "b")]
    test = [PreferencePair(n, *texts) for n, texts in (
        ("x", ("q", "a", "b")), ("y", ("q", "b", "a")), ("z", ("r", "a", "b")),
    )]  # fmt: skip
    found = compare(train, test)
    assert (list(found.rows), list(found.prompts)) == ([0], [0, 1])
    assert found.passages == []
    assert (found.searched, found.of) == (3, 3)


def test_a_run_is_shown_whole_with_the_rows_that_hold_it() -> None:
    """Words 3 to 20 of the test row are in two training rows; in other case and punctuation."""
    passage = "W3, (w4) " + words(5, 20)
    train = [
        *(text("1", words(100, 130)), text("2", f"a {words(3, 20)} b")),
        *(text("3", passage.upper()), text("4", words(3, 3 + RUN - 2))),
    ]
    found = compare(train, [text("x", words(50, 70)), text("y", f"c d {passage}. e")])
    assert found.passages == [Passage(passage, 18, 2, 1, "y", "2")]


def test_twelve_words_of_a_longer_text_are_no_run() -> None:
    train, test = [text("1", f"a {words(1, 12)} b")], [text("x", f"c {words(1, 12)} d")]
    assert compare(train, test).passages == []
    assert len(compare([text("1", f"a {words(1, 13)} b")], [text("x", words(1, 14))]).passages) == 1


@pytest.mark.parametrize("length", [SHORTEST, 8, 12])
def test_a_short_text_is_looked_for_as_a_whole(length: int) -> None:
    test = [text("x", words(1, length))]
    (passage,) = compare([text("1", f"a {words(1, length)} b")], test).passages
    assert (passage.words, passage.text) == (length, words(1, length))
    assert compare([text("1", f"a {words(1, length - 1)} b")], test).passages == []


def test_shorter_texts_are_not_looked_for() -> None:
    four = words(1, SHORTEST - 1)
    found = compare([text("1", f"a {four} b")], [text("x", four)])
    assert found.passages == []
    assert found.searched == 1


def test_a_row_counts_once_however_often_it_holds_a_run() -> None:
    run = words(1, 13)
    train = [PreferencePair("1", run, f"{run} a {run}", f"b {run}")]
    (passage,) = compare(train, [text("x", run)]).passages
    assert (passage.train_rows, passage.words) == (1, 13)


def test_runs_stay_within_a_text() -> None:
    """The prompt's end and the completion's beginning, or two turns, are no run of words."""
    rows = [
        Demonstration("1", words(1, 7), words(8, 14)),
        Demonstration("2", (Turn("user", words(1, 7)),), (Turn("assistant", words(8, 14)),)),
    ]
    test = [text("x", words(1, 14))]
    assert compare(rows, test).passages == []
    assert len(compare([text("1", words(1, 14))], test).passages) == 1


def test_rare_passages_come_before_set_phrases() -> None:
    """Every row has the phrase; one test row also has the text of one training row."""
    phrase, rare = words(1, 15), words(50, 70)
    train = [text(str(k), f"{phrase} {words(1000 + 20 * k, 1015 + 20 * k)}") for k in range(20)]
    train[7] = text("7", f"{phrase} {rare}")
    test = [text(n, f"{phrase} {more}") for n, more in (("x", "a"), ("y", rare), ("z", "b"))]
    first, second = compare(train, test).passages
    assert (first.train_rows, first.test_rows, first.train_id, first.test_id) == (1, 1, "7", "y")
    assert first.text == f"{phrase} {rare}"
    assert first.rare
    assert (second.train_rows, second.test_rows, second.train_id) == (20, 2, "0")
    assert (second.text, second.rare, RARE) == (phrase, False, 10)


def test_scripts_without_spaces() -> None:
    said = "今日は天気がとても良いですね散歩に行きましょう"
    (passage,) = compare([text("1", f"「{said}」")], [text("x", f"彼は{said}と言った")]).passages
    assert passage.text == said
    assert passage.words == len(said)


def test_a_large_test_set_is_searched_for_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 20)
    test = [text(str(k), words(20 * k, 20 * k + 13)) for k in range(4)]
    found = compare(test, test)
    assert (found.searched, found.of, len(found.passages)) == (2, 4, 2)
    assert len(found.rows) == 4


@pytest.mark.parametrize("at_once", [1, 50, 100_000])
def test_the_same_as_sets_of_tuples(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    draw = random.Random(at_once)
    source = [draw.choice("abcdefgh") for _ in range(120)]

    def rows(count: int, most: int) -> list[LabelledText]:
        found = []
        for k in range(count):
            start, length = draw.randrange(100), draw.randrange(1, most)
            cut = source[start : start + length]
            found.append(text(str(k), " ".join([*cut, draw.choice("xyz")])))
        return found

    train, test = rows(60, 40), rows(40, 25)

    def runs_of(row: LabelledText, size: int) -> set[tuple[str, ...]]:
        said = row.text.split()
        return {tuple(said[k : k + size]) for k in range(len(said) - size + 1)}

    expected: dict[str, int] = {}
    for row in test:
        size = min(RUN, len(row.text.split()))
        if size < SHORTEST:
            continue
        counts = [sum(run in runs_of(other, size) for other in train) for run in runs_of(row, size)]
        if any(counts):
            expected[row.id] = min(count for count in counts if count)
    found = compare(train, test).passages
    assert sum(passage.test_rows for passage in found) == len(expected)
    assert {p.test_id: p.train_rows for p in found}.items() <= expected.items()
    for passage in found:
        assert f" {passage.text} " in f" {train[int(passage.train_id)].text} " or passage.words > 13


def test_a_hash_beside_that_of_a_run_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that is looked at first knows no more than the beginnings of hashes."""
    monkeypatch.setattr(module, "_BITS", 1)
    test = [text(str(k), words(100 * k, 100 * k + 20)) for k in range(5)]
    train = [text("1", words(1000, 1200)), text("2", words(100, 120))]
    (passage,) = compare(train, test).passages
    assert (passage.test_id, passage.train_id, passage.train_rows) == ("1", "2", 1)
