from pathlib import Path

import pytest

from alignlab.data.rows import (
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    R,
    Ranking,
    RatedCompletion,
    RowReport,
    Turn,
)
from alignlab.data.sources import read_rows
from alignlab.errors import DataError
from tests.data.files import jsonl, messages

USER, YES, NO = Turn("user", "hi"), Turn("assistant", "yes"), Turn("assistant", "no")


def read(folder: Path, records: list, kind: type[R]) -> tuple[list[R], RowReport]:
    return read_rows(jsonl(folder, records), kind)


def test_layouts_of_conversations(tmp_path: Path) -> None:
    pair = PreferencePair("rows.jsonl:1", (USER,), (YES,), (NO,))
    written = [
        {"prompt": messages(USER), "chosen": messages(YES), "rejected": messages(NO)},
        {"chosen": messages(USER, YES), "rejected": messages(USER, NO)},
        {"prompt": "hi", "chosen": messages(USER, YES), "rejected": messages(USER, NO)},
        {
            "prompt": messages(USER),
            "chosen": messages(USER, YES),
            "rejected": messages(USER, NO),
        },
    ]
    for record in written:
        assert read(tmp_path, [record], PreferencePair)[0] == [pair]
    both = [{"messages": messages(USER, YES, USER, NO)}]
    assert read(tmp_path, both, Demonstration)[0] == [
        Demonstration("rows.jsonl:1", (USER,), (YES, USER, NO))
    ]
    assert read(tmp_path, both, Prompt)[0] == [Prompt("rows.jsonl:1", (USER, YES, USER))]


def test_a_plain_copy_of_the_question_is_no_prompt_of_its_own(tmp_path: Path) -> None:
    """UltraFeedback's columns: demonstrations, pairs and prompts ask after the same turns."""
    pair = {"chosen": messages(USER, YES), "rejected": messages(USER, NO)}
    whole = {"prompt": "hi", **pair, "messages": messages(USER, YES)}
    other = {**whole, "prompt": "ho"}
    for record in (whole, {"prompt": "hi", **pair}, {"prompt": "hi", **pair, "completion": "x"}):
        records = [record, {**record, "prompt": "ho"}]
        prompts, refusals = read(tmp_path, records, Prompt)
        why = "prompt is not the last question that chosen and rejected share"
        assert refusals.counts == {f"{why}: correct it or remove the column": 1}
        assert [row.prompt for row in prompts] == [(USER,)]
        assert [row.prompt for row in read(tmp_path, records, PreferencePair)[0]] == [(USER,)]
    assert [row.prompt for row in read(tmp_path, [whole], Demonstration)[0]] == [(USER,)]
    assert read(tmp_path, [other, whole], Prompt)[1].unused == {"messages": 2}


def test_a_plain_copy_beside_messages(tmp_path: Path) -> None:
    """UltraChat's columns: ``prompt`` is the first question of several."""
    again = Turn("user", "and?")
    record = {"prompt": "hi", "messages": messages(USER, YES, again, NO)}
    rows, refusals = read(tmp_path, [record, {**record, "prompt": "ho"}], Prompt)
    assert [row.prompt for row in rows] == [(USER,)]
    assert refusals.counts == {"'prompt' is not a turn of 'messages'": 1}
    assert [row.prompt for row in read(tmp_path, [record], Demonstration)[0]] == [(USER,)]


def test_prompts_that_are_conversations_beside_plain_answers(tmp_path: Path) -> None:
    record = {"prompt": messages(USER), "completion": "42", "chosen": "a", "rejected": "b"}
    assert [row.prompt for row in read(tmp_path, [record], Prompt)[0]] == [(USER,)]


def test_alpaca(tmp_path: Path) -> None:
    """The prompts as their authors trained on them, with and without an input."""
    task = {"instruction": "Name a colour.", "input": "", "output": "Blue."}
    given = {"instruction": "Add.", "input": "1 2", "output": "3", "text": "whole"}
    start = "Below is an instruction that describes a task"
    ends = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
    wanted = [
        f"{start}. {ends}Name a colour.\n\n### Response:",
        f"{start}, paired with an input that provides further context. {ends}Add.\n\n"
        "### Input:\n1 2\n\n### Response:",
    ]
    rows, refusals = read(tmp_path, [task, given], Demonstration)
    assert [(row.prompt, row.completion) for row in rows] == list(
        zip(wanted, ["Blue.", "3"], strict=True)
    )
    assert refusals.unused == {"text": 1}
    prompts, refusals = read(tmp_path, [task, given, {**task, "instruction": None}], Prompt)
    assert [row.prompt for row in prompts] == wanted
    assert refusals.counts == {"missing column 'instruction'": 1}
    pair = {"instruction": "Name a colour.", "chosen": "Blue.", "rejected": "Two."}
    assert [row.prompt for row in read(tmp_path, [pair], PreferencePair)[0]] == wanted[:1]


def said(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


def test_sharegpt(tmp_path: Path) -> None:
    call = said("function_call", '{"name": "w", "arguments": {"at": "sea"}}')
    talk = [said("human", "hi"), call, said("observation", "hot"), said("gpt", "yes")]
    record = {"conversations": talk, "system": "be kind", "tools": '[{"name": "w"}]'}
    (row,), refusals = read(tmp_path, [record], Demonstration)
    turns = [t for part in (row.prompt, row.completion) for t in part if isinstance(t, Turn)]
    system, user, called, result, reply = turns
    assert (system.role, system.content, system.fields) == (
        "system",
        "be kind",
        {"tools": [{"name": "w"}]},
    )
    assert (user, result, reply) == (USER, Turn("tool", "hot"), YES)
    function = {"name": "w", "arguments": {"at": "sea"}}
    assert called.fields == {"tool_calls": [{"type": "function", "function": function}]}
    assert refusals.unused == {}
    pair = {"conversations": [said("human", "hi")], "chosen": said("gpt", "yes")}
    pair["rejected"] = said("gpt", "no")
    assert read(tmp_path, [pair], PreferencePair)[0] == [
        PreferencePair("rows.jsonl:1", (USER,), (YES,), (NO,))
    ]
    odd = {"conversations": [said("human", "hi"), said("stranger", "yes")]}
    broken = {"conversations": [said("human", "hi"), said("function_call", "w(sea)")]}
    _, refusals = read(tmp_path, [record, odd, broken], Demonstration)
    assert refusals.counts == {
        "unknown speaker in 'conversations'": 1,
        "wrong type in 'conversations'": 1,
    }


def test_a_system_column_is_the_first_turn_of_a_conversation(tmp_path: Path) -> None:
    system = Turn("system", "be kind")
    record = {"prompt": messages(USER), "completion": messages(YES), "system": "be kind"}
    same = {**record, "prompt": messages(system, USER)}
    other = {**record, "prompt": messages(Turn("system", "be brief"), USER)}
    rows, refusals = read(tmp_path, [record, same, other], Demonstration)
    assert [row.prompt for row in rows] == [(system, USER)] * 2
    assert refusals.counts == {"'system' and the conversation's own system turn differ": 1}


def test_a_turn_without_words_is_no_reply(tmp_path: Path) -> None:
    """In the middle of a conversation, too: it would be trained on."""
    empty = Turn("assistant", " ")
    records = [
        {"messages": messages(USER, empty, USER, YES)},
        {"messages": messages(USER, YES, USER, empty)},
        {"messages": messages(USER, YES, USER, YES)},
    ]
    rows, refusals = read(tmp_path, records, Demonstration)
    assert [row.id for row in rows] == ["rows.jsonl:3"]
    assert refusals.counts == {"empty completion": 2}


def test_values_at_the_edge_are_refused_one_by_one(tmp_path: Path) -> None:
    """Numbers beyond floats, deep lists, text that is none: the rows beside them are read."""
    deep: list = []
    for _ in range(600):
        deep = [deep]
    good = {"prompt": "p", "completion": "c", "rating": 1}
    records = [
        good,
        {**good, "rating": 10**400},
        {**good, "rating": "1e999"},
        {**good, "rating": float("nan")},
        {**good, "prompt": deep},
        {**good, "prompt": "\ud800"},
        {**good, "id": "\ud800", "\ud800": 1},
        {"messages": [{"role": "user", "content": "a", "tool_calls": 5}]},
    ]
    rows, refusals = read(tmp_path, records, RatedCompletion)
    assert [row.id for row in rows] == ["rows.jsonl:1", "\\ud800"]
    assert refusals.count == 6
    assert refusals.unused == {"\\ud800": 1, "messages": 1}
    huge = jsonl(tmp_path, [good], "huge.jsonl")
    huge.write_text(huge.read_text() + '{"prompt": ' + "1" * 5000 + "}\n")
    assert read_rows(huge, RatedCompletion)[1].counts == {"not readable as a row": 1}


def test_dialogues_share_their_beginning(tmp_path: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: so?\n\nAssistant:"
    record = {"chosen": start + " yes", "rejected": start + " no"}
    wanted = [PreferencePair("rows.jsonl:1", start, " yes", " no")]
    assert read(tmp_path, [record], PreferencePair)[0] == wanted
    assert read(tmp_path, [{"prompt": start, **record}], PreferencePair)[0] == wanted
    assert read(tmp_path, [record], Prompt)[0] == [Prompt("rows.jsonl:1", start)]


def test_the_chosen_side_of_a_pair_is_a_demonstration(tmp_path: Path) -> None:
    """Of exactly those rows that can be pairs; what was cut off in the pair does not end here."""
    start = "\n\nHuman: hi\n\nAssistant:"
    written = [
        {"prompt": "p", "chosen": " a", "rejected": " b", "chosen_ends": False},
        {"prompt": "p", "chosen": " a", "rejected": " b", "rejected_ends": False},
        {"prompt": "p", "chosen": " a", "rejected": " a"},
    ]
    rows, refusals = read(tmp_path, written, Demonstration)
    assert rows == [
        Demonstration("rows.jsonl:1", "p", " a", ends=False),
        Demonstration("rows.jsonl:2", "p", " a", ends=True),
    ]
    assert refusals.counts == {"chosen and rejected are identical": 1}
    implicit = {"chosen": start + " yes", "rejected": start + " no"}
    wanted = [Demonstration("rows.jsonl:1", start, " yes")]
    assert read(tmp_path, [implicit], Demonstration)[0] == wanted
    assert read(tmp_path, [{"prompt": start, **implicit}], Demonstration)[0] == wanted
    turns = {"chosen": messages(USER, YES), "rejected": messages(USER, NO)}
    assert read(tmp_path, [turns], Demonstration)[0] == [
        Demonstration("rows.jsonl:1", (USER,), (YES,))
    ]


def test_a_plain_prompt_may_be_the_first_question_of_a_longer_conversation(tmp_path: Path) -> None:
    """As in UltraChat; where more than the last turns differ, it must be the last question."""
    ask, system = Turn("user", "and then?"), Turn("system", "be kind")
    long = (system, USER, YES, ask)
    good = {"chosen": messages(*long, YES), "rejected": messages(*long, NO)}
    apart = {"chosen": messages(*long, YES, USER, YES), "rejected": messages(*long, NO)}
    records = [
        {"prompt": USER.content, **good},
        {"prompt": ask.content, **good},
        {"prompt": YES.content, **good},
        {"prompt": USER.content + " ", **good},
        {"prompt": USER.content, **apart},
        {"prompt": ask.content, **apart},
    ]
    rows, refusals = read(tmp_path, records, PreferencePair)
    assert [row.id for row in rows] == [f"rows.jsonl:{k}" for k in (1, 2, 6)]
    assert [row.prompt for row in rows] == [long] * 3
    assert (rows[0].chosen, rows[0].rejected) == ((YES,), (NO,))
    why = "prompt is not the last question that chosen and rejected share"
    assert refusals.counts == {f"{why}: correct it or remove the column": 3}


def test_dialogue_warts_are_counted(tmp_path: Path) -> None:
    """The warts of HH: equal replies, an empty reply, earlier turns that differ."""
    start = "\n\nHuman: hi\n\nAssistant:"
    other = "\n\nHuman: ho\n\nAssistant:"
    records = [
        {"prompt": start, "chosen": start + " yes", "rejected": start + " no"},
        {"prompt": start, "chosen": start + " yes", "rejected": start + " yes"},
        {"prompt": start, "chosen": start + " ", "rejected": start + " no"},
        {"prompt": start, "chosen": start + " yes", "rejected": other + " no"},
    ]
    wanted = {
        "chosen and rejected are identical": ["rows.jsonl:2"],
        "empty completion": ["rows.jsonl:3"],
        "prompt of the pair is not shared": ["rows.jsonl:4"],
    }
    for warty in (records, [{k: v for k, v in r.items() if k != "prompt"} for r in records]):
        rows, refusals = read(tmp_path, warty, PreferencePair)
        assert rows == [PreferencePair("rows.jsonl:1", start, " yes", " no")]
        assert refusals.by_reason == wanted


def test_completion_that_happens_to_repeat_the_prompt_is_left_alone(tmp_path: Path) -> None:
    records = [
        {"prompt": "a", "completion": "ab"},
        {"prompt": "c", "completion": "d"},
        {"prompt": "e", "completion": "f"},
    ]
    assert [row.completion for row in read(tmp_path, records, Demonstration)[0]] == ["ab", "d", "f"]


def test_a_prompt_is_taken_off_completions_as_whole_words_and_said_to_be(tmp_path: Path) -> None:
    """Most completions begin with the letters of their prompt here, none with its words."""
    records = [
        {"prompt": "the", "completion": "then it ended"},
        {"prompt": "a", "completion": "all is good"},
        {"prompt": "he", "completion": "hello"},
    ]
    rows, refusals = read(tmp_path, records, Demonstration)
    assert [row.completion for row in rows] == [record["completion"] for record in records]
    assert refusals.notes == []
    records = [{"prompt": "the", "completion": "the film"}, {"prompt": "a:", "completion": "a:b"}]
    rows, refusals = read(tmp_path, records, Demonstration)
    assert [row.completion for row in rows] == [" film", "b"]
    assert refusals.notes == ["prompts are removed from 'completion', which begins with them"]


@pytest.mark.parametrize("odd_first", [True, False])
def test_the_first_row_does_not_decide_the_format(tmp_path: Path, odd_first: bool) -> None:
    chats = [{"prompt": messages(USER), "completion": messages(YES)}] * 3
    odd = {"prompt": "hi", "completion": "yes"}
    rows, refusals = read(tmp_path, [odd, *chats] if odd_first else [*chats, odd], Demonstration)
    assert [row.completion for row in rows] == [(YES,)] * 3
    (reason,) = refusals.by_reason
    assert reason == "wrong type in 'prompt'"
    assert refusals.by_reason[reason] == ["rows.jsonl:1" if odd_first else "rows.jsonl:4"]


def test_as_many_plain_rows_as_conversations_are_read_as_plain(tmp_path: Path) -> None:
    records = [{"prompt": messages(USER)}, {"prompt": "a"}]
    rows, refusals = read(tmp_path, records, Prompt)
    assert [row.prompt for row in rows] == ["a"]
    assert refusals.by_reason == {"wrong type in 'prompt'": ["rows.jsonl:1"]}


def test_equal_conversations_are_named_so(tmp_path: Path) -> None:
    record = {"chosen": messages(USER, YES), "rejected": messages(USER, YES)}
    with pytest.raises(DataError, match="chosen and rejected are identical"):
        read(tmp_path, [record], PreferencePair)


def test_row_without_a_column_that_others_have(tmp_path: Path) -> None:
    records = [
        {"prompt": "a"},
        {"prompt": "a", "completion": "b"},
        {"prompt": None, "completion": "b"},
    ]
    rows, refusals = read(tmp_path, records, Demonstration)
    assert len(rows) == 1
    assert refusals.by_reason == {
        "missing column 'completion'": ["rows.jsonl:1"],
        "missing column 'prompt'": ["rows.jsonl:3"],
    }


@pytest.mark.parametrize(
    ("record", "kind", "reason"),
    [
        ({"prompt": 5}, Prompt, "wrong type in 'prompt'"),
        ({"text": "a", "label": "good"}, LabelledText, "wrong type in 'label'"),
        ({"prompt": "a", "completion": "b", "ends": "no"}, Demonstration, "wrong type in 'ends'"),
        ({"messages": messages(USER)}, Demonstration, "no assistant turn in 'messages'"),
        (
            {"prompt": "ho", "chosen": messages(YES), "rejected": messages(NO)},
            PreferencePair,
            "prompt of the pair is not shared (1 rows, first rows.jsonl:1: write 'prompt' as a",
        ),
        (
            {"question": "ho", "chosen": "a", "rejected": "b"},
            PreferencePair,
            "no 'prompt' column and no '\\n\\nAssistant:' turn to find it by (1 rows, first "
            "rows.jsonl:1: if another column holds the prompts, name it: columns: {prompt: quest",
        ),
        ({"messages": messages(YES)}, Prompt, "empty prompt in 'messages'"),
        (
            {"messages": messages(USER, YES, USER)},
            Demonstration,
            "'messages' does not end with an assistant turn",
        ),
        ({"messages": [{"role": "user"}]}, Demonstration, "wrong type in 'messages'"),
        (
            {"prompt": messages(USER), "completion": messages(USER)},
            Demonstration,
            "completion does not start with an assistant turn",
        ),
        (
            {"chosen": messages(USER, YES), "rejected": messages(Turn("user", "ho"), NO)},
            PreferencePair,
            "prompt of the pair is not shared",
        ),
        (
            {"prompt": "ho", "chosen": messages(USER, YES), "rejected": messages(USER, NO)},
            PreferencePair,
            "prompt is not the last question that chosen and rejected share: "
            "correct it or remove the column",
        ),
        ({"chosen": "a", "rejected": "b"}, PreferencePair, "no 'prompt' column and no"),
    ],
)
def test_odd_rows_are_refused_with_the_reason(tmp_path: Path, record, kind, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [record], kind)
    assert f"none of its 1 rows can be used: {reason}" in str(caught.value)


def test_own_ids_are_kept_and_refusals_say_where(tmp_path: Path) -> None:
    records = [{"id": "x7", "prompt": "a"}, {"id": 12, "prompt": "b"}, {"id": "x9", "prompt": 1}]
    rows, refusals = read(tmp_path, records, Prompt)
    assert [row.id for row in rows] == ["x7", "12"]
    assert refusals.by_reason == {"wrong type in 'prompt'": ["rows.jsonl:3"]}


def test_ids_that_repeat_are_told_apart(tmp_path: Path) -> None:
    """Refused rows count too: a row's name does not depend on what becomes of the others."""
    ids = ["c7", "c7", "c8", "c7", "c7#2", 7, "7"]
    records = [{"id": own, "prompt": f"{k}"} for k, own in enumerate(ids)]
    records[0]["prompt"] = 5
    rows, refusals = read(tmp_path, records, Prompt)
    named = {row.prompt: row.id for row in rows}
    assert named == {"1": "c7#2", "2": "c8", "3": "c7#3", "4": "c7#2#2", "5": "7", "6": "7#2"}
    assert refusals.notes == [
        "ids repeat in 4 rows, which are told apart by a number: rows.jsonl:2 is called c7#2"
    ]
    assert read(tmp_path, [{"id": "x", "prompt": "a"}], Prompt)[1].notes == []


def test_rankings_plain_and_conversational(tmp_path: Path) -> None:
    """Whatever numbers say the order, the best gets rank 0 and equal ones the same."""
    plain = {"prompt": "hi", "completions": ["a", "b", "c"], "ranks": [20, 7.5, 20]}
    cut = plain | {"ends": [True, False, True], "id": "cut"}
    assert read(tmp_path, [plain, cut], Ranking)[0] == [
        Ranking("rows.jsonl:1", "hi", ("a", "b", "c"), (1, 0, 1)),
        Ranking("cut", "hi", ("a", "b", "c"), (1, 0, 1), (True, False, True)),
    ]
    chat = {
        "prompt": messages(USER),
        "completions": [messages(YES), messages(NO)],
        "ranks": [0, 1],
    }
    assert read(tmp_path, [chat], Ranking)[0] == [
        Ranking("rows.jsonl:1", (USER,), ((YES,), (NO,)), (0, 1))
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completions": "ab"}, "wrong type in 'completions'"),
        ({"completions": ["a", 5]}, "wrong type in 'completions'"),
        ({"completions": ["a", None]}, "wrong type in 'completions'"),
        ({"ranks": [0, "1"]}, "wrong type in 'ranks'"),
        ({"ranks": [0, float("nan")]}, "wrong type in 'ranks'"),
        ({"ranks": 1}, "wrong type in 'ranks'"),
        ({"ranks": None}, "missing column 'ranks'"),
        ({"ranks": [0, 1, 2]}, "'completions', 'ranks' and 'ends' differ in length"),
        ({"ends": [True, "no"]}, "wrong type in 'ends'"),
        ({"ends": True}, "wrong type in 'ends'"),
    ],
)
def test_rankings_that_cannot_be_read(tmp_path: Path, change: dict, reason: str) -> None:
    good = {"prompt": "hi", "completions": ["a", "b"], "ranks": [0, 1]}
    rows, refusals = read(tmp_path, [good, good | change], Ranking)
    assert len(rows) == 1
    assert refusals.by_reason == {reason: ["rows.jsonl:2"]}


def test_ratings(tmp_path: Path) -> None:
    records = [
        {"prompt": "hi", "completion": "a", "rating": 4, "ends": False},
        {"prompt": "hi", "completion": "b", "rating": None},
        {"prompt": "hi", "completion": "b", "rating": "good"},
    ]
    rows, refusals = read(tmp_path, records, RatedCompletion)
    assert rows == [RatedCompletion("rows.jsonl:1", "hi", "a", 4.0, ends=False)]
    assert refusals.counts == {"missing column 'rating'": 1, "wrong type in 'rating'": 1}


def test_judgements(tmp_path: Path) -> None:
    labels = ["desirable", "undesirable", True, False, None, "good", 2]
    records = [{"prompt": "hi", "completion": "a", "label": label} for label in labels]
    rows, refusals = read(tmp_path, records, JudgedCompletion)
    assert [row.label for row in rows] == 2 * ["desirable", "undesirable"]
    allowed = "allowed are desirable, undesirable, true, false, 1 and 0"
    assert refusals.counts == {f"wrong value in 'label': {allowed}": 2, "missing column 'label'": 1}
