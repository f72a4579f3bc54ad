"""Copies, contradictions and cycles, counted by hand."""

from typing import Any

import pytest

from alignlab.data.repeats import COPY, CYCLIC, OPPOSED, Repeats
from alignlab.data.rows import (
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    Ranking,
    RatedCompletion,
    Row,
    Turn,
)


def found(rows: list[Any]) -> dict[str, list[int]]:
    repeats = Repeats()
    assert list(repeats.watch(rows)) == rows
    places = {what: list(map(int, where)) for what, where in repeats.found().items()}
    assert repeats.counts() == {what: len(where) for what, where in places.items() if where}
    return places


def pair(better: str, worse: str, prompt: str = "p", **more: Any) -> PreferencePair:
    return PreferencePair("", prompt, better, worse, **more)


def test_pairs() -> None:
    """0 and 1 are opposite; 2, 3, 4 a cycle of another prompt; 5 copies 2; 6 hangs on the cycle."""
    rows = [
        *(pair("a", "b"), pair("b", "a")),
        *(pair("a", "b", "q"), pair("b", "c", "q"), pair("c", "a", "q")),
        *(pair("a", "b", "q"), pair("a", "d", "q")),
        *(pair("c", "a", "r"), pair("a", "b", "r")),
    ]
    assert found(rows) == {COPY: [5], OPPOSED: [0, 1], CYCLIC: [0, 1, 2, 3, 4, 5]}


def test_what_differs_is_no_copy() -> None:
    """Case, spacing, a margin, an end that was cut off: each makes another row."""
    rows = [
        *(pair("a", "b"), pair("A", "b"), pair("a", "b", "p "), pair("a", "b", margin=1.0)),
        *(pair("a", "b", margin=2.0), pair("a", "b", chosen_ends=False), pair("a", "b")),
    ]
    assert found(rows)[COPY] == [6]


def test_a_text_that_was_cut_is_another_completion() -> None:
    rows = [pair("a", "b"), pair("b", "a", rejected_ends=False)]
    assert found(rows) == {COPY: [], OPPOSED: [], CYCLIC: []}


def test_the_border_of_prompt_and_completion_tells_rows_apart() -> None:
    rows = [Demonstration("", "ab", "c"), Demonstration("", "a", "bc"), Demonstration("", "a", "b")]
    assert found([*rows, rows[0]])[COPY] == [3]


def test_rankings_contradict_each_other_over_rows() -> None:
    """a > b = c and c > a: of 0 and 1. b and c are tied in 0, so 2 (b > c) is in no cycle."""
    rows = [
        Ranking("", "p", ("a", "b", "c"), (0, 1, 1)),
        Ranking("", "p", ("a", "c"), (1, 0)),
        Ranking("", "q", ("b", "c"), (0, 1)),
    ]
    assert found(rows) == {COPY: [], OPPOSED: [0, 1], CYCLIC: [0, 1]}


def test_a_cycle_through_the_levels_of_a_ranking() -> None:
    """a > b > c in one row, c > a in another: no row is the other's opposite."""
    rows = [Ranking("", "p", ("c", "a", "b"), (2, 0, 1)), Ranking("", "p", ("c", "a"), (0, 1))]
    assert found(rows) == {COPY: [], OPPOSED: [], CYCLIC: [0, 1]}


@pytest.mark.parametrize(
    "make",
    [
        lambda text, label: JudgedCompletion(
            "", "p", text, "desirable" if label else "undesirable"
        ),
        lambda text, label: RatedCompletion("", "p", text, float(label)),
        lambda text, label: LabelledText("", text, float(label)),
    ],
)
def test_one_text_with_two_labels(make: Any) -> None:
    rows = [make("a", 1), make("b", 1), make("b", 1), make("a", 0), make("c", 0)]
    assert found(rows) == {COPY: [2], OPPOSED: [0, 3], CYCLIC: []}


def test_texts_without_labels_and_prompts_can_only_be_copies() -> None:
    turn = (Turn("user", "a"),)
    texts: list[Row] = [LabelledText("", "a"), LabelledText("", "b"), LabelledText("", "a")]
    prompts: list[Row] = [Prompt("", turn), Prompt("", (Turn("system", "a"),)), Prompt("", turn)]
    for rows in (texts, prompts):
        assert found(rows) == {COPY: [2], OPPOSED: [], CYCLIC: []}
    assert found([]) == {COPY: [], OPPOSED: [], CYCLIC: []}
