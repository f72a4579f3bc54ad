import math

import pytest

from alignlab.data.rows import (
    Candidates,
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    Ranking,
    RatedCompletion,
    Refused,
    Row,
    RowReport,
    Turn,
    prompt_key,
    split_by_prompt,
    unit_hash,
)
from alignlab.errors import ConfigError, DataError

USER, ANSWER = Turn("user", "hi"), Turn("assistant", "yo")


@pytest.mark.parametrize(
    "row",
    [
        Prompt("r", ""),
        Demonstration("r", "", "b"),
        Demonstration("r", (USER,), (ANSWER,)),
        PreferencePair("r", "a", "b", "c", margin=0.5),
        PreferencePair("r", "a", "b", "b", chosen_ends=True, rejected_ends=False),
        Ranking("r", "a", ("b", "c", "b"), (0, 1, 0)),
        Ranking("r", "a", ("b", "b"), (0, 1), ends=(True, False)),
        RatedCompletion("r", "a", "b", -1.5),
        Candidates("r", "a", ("b", "c", "b"), (0.5, 0.5, 0.5)),
        Candidates("r", "a", ("b", "b"), (0.5, 1.5), ends=(True, False)),
        JudgedCompletion("r", "a", "b", "undesirable"),
        LabelledText("r", "text"),
        LabelledText("r", "text", 0.0),
    ],
)
def test_usable_rows_pass(row: Row) -> None:
    row.check()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Demonstration("r", "a", ""), "empty completion"),
        (Demonstration("r", "a", " \n"), "empty completion"),
        (Demonstration("r", (USER,), (Turn("assistant", " "),)), "empty completion"),
        (PreferencePair("r", "a", "", "b"), "empty completion"),
        (PreferencePair("r", "a", "b", "\t"), "empty completion"),
        (PreferencePair("r", "a", "b", "b"), "chosen and rejected are identical"),
        (PreferencePair("r", "a", "b", "c", margin=math.nan), "'margin' is not a finite number"),
        (Ranking("r", "a", ("b", " "), (0, 1)), "empty completion"),
        (Ranking("r", "a", ("b",), (0,)), "nothing to compare: fewer than two ranks"),
        (Ranking("r", "a", ("b", "c"), (0, 0)), "nothing to compare: fewer than two ranks"),
        (Ranking("r", "a", ("b", "c", "b"), (0, 1, 2)), "one completion has two ranks"),
        (
            Ranking("r", "a", ("b", "c"), (0, 1, 2)),
            "'completions', 'ranks' and 'ends' differ in length",
        ),
        (
            Ranking("r", "a", ("b", "c"), (0, 1), ends=(True,)),
            "'completions', 'ranks' and 'ends' differ in length",
        ),
        (Candidates("r", "a", (), ()), "no completion"),
        (Candidates("r", "a", ("b", " "), (0.0, 1.0)), "empty completion"),
        (Candidates("r", "a", ("b",), (math.inf,)), "'ratings' is not a finite number"),
        (Candidates("r", "a", ("b", "b"), (0.0, 1.0)), "one completion has two ratings"),
        (
            Candidates("r", "a", ("b", "c"), (0.0, 1.0), ends=(True,)),
            "'completions', 'ratings' and 'ends' differ in length",
        ),
        (RatedCompletion("r", "a", "", 1.0), "empty completion"),
        (RatedCompletion("r", "a", "b", math.nan), "'rating' is not a finite number"),
        (JudgedCompletion("r", "a", " ", "desirable"), "empty completion"),
        (LabelledText("r", "  "), "empty text"),
        (LabelledText("r", "a", math.inf), "'label' is not a finite number"),
        (Prompt("r", "a\ud800"), "text is not valid Unicode"),
        (Demonstration("r", "a", "\udfff"), "text is not valid Unicode"),
        (Prompt("r", (Turn("user", "\ud800"),)), "text is not valid Unicode"),
    ],
)
def test_unusable_rows_are_refused_with_the_reason(row: Row, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        row.check()
    assert caught.value.reason == reason


def test_report_counts_by_reason_with_ids() -> None:
    refusals = RowReport("pairs.jsonl", seen=1200)
    for k in (3, 5, 8, 13):
        refusals.add(f"pairs.jsonl:{k}", Refused("empty completion", " in 'chosen'"))
    refusals.add("pairs.jsonl:9", Refused("missing column 'prompt'"))
    assert refusals.count == 5
    assert refusals.lines() == [
        "  refused 4 x empty completion: pairs.jsonl:3 (in 'chosen'), pairs.jsonl:5, "
        "pairs.jsonl:8, ...",
        "  refused 1 x missing column 'prompt': pairs.jsonl:9",
    ]


def test_no_usable_row_names_the_file_and_the_commonest_reasons() -> None:
    refusals = RowReport("pairs.jsonl", seen=3)
    refusals.add("pairs.jsonl:2", Refused("empty completion"))
    refusals.add("pairs.jsonl:1", Refused("wrong type in 'chosen'"))
    refusals.add("pairs.jsonl:3", Refused("wrong type in 'chosen'"))
    with pytest.raises(DataError, match=r"pairs\.jsonl: none of its 3 rows.*") as caught:
        refusals.require_rows(0)
    said = str(caught.value)
    assert said.index("wrong type in 'chosen' (2 rows, first pairs.jsonl:1)") < said.index(
        "empty completion (1 rows, first pairs.jsonl:2)"
    )
    refusals.require_rows(1)


def test_refuse_error_stops_at_the_first_row() -> None:
    refusals = RowReport("pairs.jsonl", refuse="error")
    with pytest.raises(DataError, match=r"^pairs\.jsonl:4: empty completion in 'chosen'\. "):
        refusals.add("pairs.jsonl:4", Refused("empty completion", " in 'chosen'"))


def test_unknown_strictness() -> None:
    with pytest.raises(ConfigError, match="refuse must be one of"):
        RowReport("x", refuse="maybe")  # type: ignore[arg-type]


def test_all_rows_of_a_prompt_fall_on_one_side() -> None:
    rows = [PreferencePair(str(k), f"prompt {k % 300}", "a", "b") for k in range(1200)]
    train, held_out = split_by_prompt(rows, 0.2, seed=0)
    sides = [{prompt_key(row) for row in part} for part in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(train) + len(held_out) == 1200
    assert 35 <= len(sides[1]) <= 85  # 60 expected of 300; 7 standard deviations wide
    assert {row.id for row in held_out} != {row.id for row in split_by_prompt(rows, 0.2, seed=1)[1]}


def test_split_does_not_depend_on_the_other_rows() -> None:
    rows = [Prompt(str(k), f"prompt {k}") for k in range(100)]
    held_out = split_by_prompt(rows, 0.3, seed=5)[1]
    assert split_by_prompt(rows[::-2], 0.3, seed=5)[1] == [r for r in rows[::-2] if r in held_out]
    assert split_by_prompt(rows, 0.0, seed=5) == (rows, [])


def test_conversations_with_the_same_prompt_share_a_key() -> None:
    rows: list[Row] = [
        Prompt("a", (USER,)),
        Demonstration("b", (USER,), (ANSWER,)),
        Prompt("c", (ANSWER,)),
    ]
    keys = [prompt_key(row) for row in rows]
    assert keys[0] == keys[1] != keys[2]


def test_impossible_share() -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\), got 1\.0"):
        split_by_prompt([Prompt("r", "a")], 1.0, seed=0)


def test_unit_hash_is_pinned() -> None:
    """Splits and prompts of finished runs hang on it: SHA-256 of "0", a NUL, "a", first 8 bytes."""
    assert unit_hash("a", 0) == 0.37150006202396163
    assert unit_hash("a", 1) != unit_hash("a", 0) != unit_hash("b", 0)
