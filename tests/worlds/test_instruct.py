"""The instruction world: what tasks mean, what is held out, rows as functions of a seed."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.worlds import instruct
from alignlab.worlds.instruct import Task

HELD_OUT = {*instruct.COMPOSITIONS, *instruct.NEW_ORDERS}


@pytest.mark.parametrize(
    ("order", "change", "answer"),
    [
        ("copy", "same", "hot big up wet"),
        ("reverse", "same", "wet up big hot"),
        ("first", "opposite", "cold"),
        ("last", "kind", "water"),
        ("swap", "same", "big hot up wet"),
        ("rest", "opposite", "small down dry"),
        ("second", "translate", "bor"),
        ("reverse", "kind", "water height size heat"),
        ("copy", "translate", "zul bor pof ruz"),
    ],
)
def test_answers_by_hand(order: str, change: str, answer: str) -> None:
    assert Task(order, change).answer(["hot", "big", "up", "wet"]) == answer


def test_held_out_tasks_are_not_trained_but_the_parts_of_compositions_are() -> None:
    trained = set(instruct.TRAINED)
    assert len(trained) == len(instruct.TRAINED) == 18
    assert not trained & HELD_OUT
    for task in instruct.COMPOSITIONS:
        assert sum(t.order == task.order for t in trained) >= 3
        assert sum(t.change == task.change for t in trained) >= 3
    assert not {t.order for t in trained} & {t.order for t in instruct.NEW_ORDERS}
    assert {t.order for t in instruct.TRAINED[:6]} == {t.order for t in trained}
    assert {t.change for t in instruct.TRAINED[:6]} == set(instruct.CHANGES)


def test_no_two_tasks_are_the_same_on_every_list() -> None:
    for words in (["hot", "big", "up"], ["hot", "big", "up", "wet"]):
        answers = [task.answer(words) for task in instruct.ALL]
        assert len(set(answers)) == len(answers)


def test_held_out_phrases_are_new_but_their_words_are_not() -> None:
    for table in (instruct.ORDER_PHRASES, instruct.CHANGE_PHRASES):
        for name, ways in table.items():
            if name in ("second", "same"):
                continue
            *trained, held_out = ways
            assert len(trained) == instruct.TRAINED_PHRASES
            assert held_out not in trained
    trained_words = {
        word
        for task in instruct.TRAINED
        for way in instruct.instructions(task, slice(instruct.TRAINED_PHRASES))
        for word in way.split()
    }
    held_out_words = {
        word
        for task in instruct.TRAINED
        for way in instruct.instructions(task, slice(instruct.TRAINED_PHRASES, None))
        for word in way.split()
    }
    assert held_out_words - trained_words == {"a", "let", "one"}  # no word that matters


def test_the_corpus_shows_every_task_under_its_code_and_gives_no_instruction() -> None:
    texts = [row["text"] for row in instruct.make_corpus(seed=0, rows=600, examples=4)]
    assert {word for text in texts for word in text.split()} == set(instruct.vocabulary())
    ways = {way for task in instruct.ALL for way in instruct.instructions(task, slice(None))}
    by_code = {task.code: task for task in instruct.ALL}
    assert len(by_code) == len(instruct.ALL) == 28
    codes, shown = 0, set()
    for text in texts:
        heading, _, rest = text.rpartition(" : ")
        lines = [line.split(" = ") for line in rest.removesuffix(" .").split(" . ")]
        fitting = {t for t in instruct.ALL if all(t.answer(a.split()) == b for a, b in lines)}
        assert fitting, text  # one task a text
        shown |= fitting
        codes += heading in by_code
        assert heading not in ways
        if heading in by_code:
            assert by_code[heading] in fitting
    assert shown == set(instruct.ALL)
    assert codes / 600 == pytest.approx(0.5, abs=0.06)
    code_words = {word for code in by_code for word in code.split()}
    assert not code_words & {word for way in ways for word in way.split()}


def test_rows_are_functions_of_seed_and_number() -> None:
    many = instruct.make_instructions(seed=1, rows=60)
    assert instruct.make_instructions(seed=1, rows=20) == many[:20]
    assert instruct.make_instructions(seed=2, rows=20) != many[:20]
    corpus = instruct.make_corpus(seed=1, rows=30, examples=3)
    assert instruct.make_corpus(seed=1, rows=10, examples=3) == corpus[:10]


def solves(row: dict[str, str]) -> list[Task]:
    """The trained tasks that the row's instruction may mean."""
    way = row["prompt"].split(" : ")[0]
    return [t for t in instruct.TRAINED if way in instruct.instructions(t, slice(3))]


def test_instructions_name_one_trained_task_and_answer_it() -> None:
    for row in instruct.make_instructions(seed=0, rows=500):
        (task,) = solves(row)
        words = row["prompt"].split(" : ")[1].removesuffix(" =").split()
        assert row["completion"] == f" {task.answer(words)} ."


def test_tasks_and_phrases_can_be_few() -> None:
    rows = instruct.make_instructions(seed=0, rows=300, tasks=6, phrases=1)
    assert {task for row in rows for task in solves(row)} == set(instruct.TRAINED[:6])
    assert len({row["prompt"].split(" : ")[0] for row in rows}) == 6


def test_wrong_answers_are_those_of_other_tasks_and_as_many_as_asked() -> None:
    clean = instruct.make_instructions(seed=0, rows=1000)
    half = instruct.make_instructions(seed=0, rows=1000, wrong=0.5)
    more = instruct.make_instructions(seed=0, rows=1000, wrong=0.8)
    assert [row["prompt"] for row in half] == [row["prompt"] for row in clean]
    pairs = [(a["completion"], b["completion"]) for a, b in zip(clean, half, strict=True)]
    assert sum(a != b for a, b in pairs) / 1000 == pytest.approx(0.5, abs=0.05)
    for right, some, many in zip(clean, half, more, strict=True):
        if some["completion"] != right["completion"]:
            assert many["completion"] == some["completion"]  # the same rows first
            words = right["prompt"].split(" : ")[1].removesuffix(" =").split()
            assert some["completion"] in {f" {t.answer(words)} ." for t in instruct.TRAINED}


def test_questions_hold_what_their_kind_says() -> None:
    rows = instruct.make_questions(seed=0, each=3, shots=(0, 2))
    assert len(rows) == (18 + 18 + 6 + 4) * 3 * 2
    assert len({row["id"] for row in rows}) == len(rows)
    tasks = {task.name: task for task in instruct.ALL}
    for row in rows:
        task = tasks[row["task"]]
        way, _, rest = row["prompt"].partition(" : ")
        *shown, question = rest.removesuffix(" =").split(" . ")
        assert len(shown) == row["shots"]
        for line in shown:
            words, said = line.split(" = ")
            assert task.answer(words.split()) == said
        assert row["completion"] == f" {task.answer(question.split())} ."
        trained_ways = instruct.instructions(task, slice(3))
        assert (way in trained_ways) == (row["kind"] != "phrasing")
        if row["kind"] in ("trained", "phrasing"):
            assert task in instruct.TRAINED
        else:
            assert task in HELD_OUT
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        other = by_id[row["id"].rsplit("/", 1)[0] + "/0"]
        assert row["completion"] == other["completion"]  # the same question with and without


@pytest.mark.parametrize("settings", [{"tasks": 0}, {"tasks": 19}, {"phrases": 4}, {"wrong": 1.5}])
def test_impossible_numbers(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"tasks in 1\.\.18"):
        instruct.make_instructions(seed=0, rows=1, **settings)


def test_files(tmp_path: Path) -> None:
    instruct.write_corpus(out=tmp_path, rows=3)
    parts: dict[str, dict[str, Any]] = {"0": {"rows": 4}, "50": {"rows": 2, "wrong": 0.5}}
    instruct.write_instructions(out=tmp_path, files={"wrong.jsonl": parts}, seed=0)
    instruct.write_questions(out=tmp_path, each=1, shots=[0])
    lines = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("corpus", "wrong", "questions")
    }
    assert [row["split"] for row in lines["wrong"]] == ["0"] * 4 + ["50"] * 2
    assert len(lines["corpus"]) == 3
    assert len(lines["questions"]) == 46
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = lines["questions"][0]["prompt"] + lines["questions"][0]["completion"]
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.split())
    assert tokenizer.unk_token_id not in ids
