"""What is recognised and counted in a source, against counts by hand."""

import re
from pathlib import Path
from typing import Any

import pytest

from alignlab.check_data import survey as module
from alignlab.check_data.survey import Source, Survey, quantiles, survey
from alignlab.data.rows import (
    Candidates,
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    Ranking,
    RatedCompletion,
    Row,
)
from alignlab.errors import DataError
from tests.data.files import jsonl

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
CHAT = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]


def found(folder: Path, records: list[Any], **more: Any) -> Survey:
    return survey(Source(str(jsonl(folder, records)), **more))


@pytest.mark.parametrize(
    ("record", "kind", "read_as", "template"),
    [
        (PAIR, PreferencePair, "prompt + chosen + rejected: plain text", "none: prompt and"),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
            PreferencePair,
            "chosen + rejected: plain text",
            "dialogues as in HH",
        ),
        (
            {**PAIR, "chosen": CHAT, "rejected": [CHAT[0], {**CHAT[1], "content": "No."}],
             "prompt": "Hi.", "messages": CHAT},
            PreferencePair,
            "prompt + chosen + rejected: conversations",
            "the tokenizer's chat template",
        ),
        (
            {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 2]},
            Ranking,
            "prompt + completions + ranks: plain text",
            "none: prompt and",
        ),
        (
            {"prompt": "p", "completions": ["a", "b"], "ratings": [3, 1]},
            Candidates,
            "prompt + completions + ratings: plain text",
            "none: prompt and",
        ),
        (
            {"prompt": "p", "completion": "a", "rating": 3},
            RatedCompletion,
            "prompt + completion + rating: plain text",
            "none: prompt and",
        ),
        (
            {"instruction": "Name a colour.", "input": "", "output": "Blue."},
            Demonstration,
            "instruction + input + output: plain text",
            "Alpaca's prompt",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            Demonstration,
            "conversations: conversations",
            "the tokenizer's chat template",
        ),
        ({"messages": CHAT}, Demonstration, "messages: conversations", "the tokenizer's chat"),
        ({"text": "a", "label": 1}, LabelledText, "text: plain text", "none"),
        ({"prompt": "p", "answer": "4"}, Prompt, "prompt: plain text", "none"),
    ],
)  # fmt: skip
def test_recognised(
    record: Any, kind: type[Row], read_as: str, template: str, tmp_path: Path
) -> None:
    said = found(tmp_path, [record])
    assert said.kind is kind
    assert said.report.read_as == f"{kind.__name__} from {read_as}"
    assert said.template.startswith(template)
    assert said.file_format == ".jsonl, 1 file(s), 0.0 MB"


def test_what_columns_say_can_be_overruled(tmp_path: Path) -> None:
    assert found(tmp_path, [PAIR], kind=Prompt).kind is Prompt
    renamed = {"question": "p", "answer": "a"}
    columns = {"prompt": "question", "completion": "answer"}
    assert found(tmp_path, [renamed], columns=columns).kind is Demonstration
    with pytest.raises(DataError, match=r"missing column .* Columns found: answer, question"):
        found(tmp_path, [renamed])


def test_one_label_alone_would_stop_training(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "a", "label": label} for label in (True, True)]
    said = found(tmp_path, rows)
    assert said.kind is JudgedCompletion
    (stop,) = said.stops
    assert "all 2 usable rows are desirable" in stop
    assert found(tmp_path, [*rows, {**rows[0], "label": False}]).stops == []


def test_lengths_in_words(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a b", "chosen": " c d e", "rejected": " f"},
        {"prompt": "a\nb  c", "chosen": " d", "rejected": " e f"},
    ]
    said = found(tmp_path, rows)
    assert {part: list(n) for part, n in said.words.items()} == {
        "prompt": [2, 3],
        "chosen": [3, 1],
        "rejected": [1, 2],
        "prompt + longest completion": [5, 5],
    }
    assert said.longer == 1


def test_turns_are_counted_together(tmp_path: Path) -> None:
    said = found(tmp_path, [{"messages": [*CHAT, *CHAT]}])
    assert {part: list(n) for part, n in said.words.items()} == {
        "prompt": [1],
        "completion": [3],
        "prompt + longest completion": [4],
    }
    assert list(found(tmp_path, [{"text": "a b c"}]).words["text"]) == [3]


def test_quantiles_are_lengths_that_occur() -> None:
    """Of 1 to 100: at least half of them are at most 50, 95 of them at most 95."""
    assert quantiles(range(1, 101)) == {
        **{"shortest": 1, "median": 50, "95 %": 95},
        **{"99 %": 99, "longest": 100},
    }
    assert quantiles([7]) == dict.fromkeys(("shortest", "median", "95 %", "99 %", "longest"), 7)


def test_completions_that_nothing_parts_from_their_prompt(tmp_path: Path) -> None:
    texts = [("The plot", "is"), ("The plot", " is"), ("The plot ", "is"), ("Why?\n", "-"),
             ("Answer:", "No"), ("Answer:", "\nNo")]  # fmt: skip
    said = found(tmp_path, [{"prompt": prompt, "completion": end} for prompt, end in texts])
    assert said.named(said.glued) == ["rows.jsonl:1", "rows.jsonl:5"]
    assert found(tmp_path, [{"messages": CHAT}]).glued == []


def test_a_sample_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is as likely as another: of 400 rows with a sample of 50, a half has 25 ± 10."""
    monkeypatch.setattr(module, "SAMPLE", 50)
    said = found(tmp_path, [{"text": f"w{k}"} for k in range(400)])
    places = [int(row.id.partition(":")[2]) for row in said.sample]
    assert len(set(places)) == 50
    assert places == sorted(places)
    assert 15 < sum(place <= 200 for place in places) < 35
    assert len(said.ids) == 400
    assert [row.id for row in found(tmp_path, [{"text": "a"}] * 3).sample] == [
        "rows.jsonl:1",
        "rows.jsonl:2",
        "rows.jsonl:3",
    ]


def test_each_row_is_passed_on_with_its_place(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    path = jsonl(tmp_path, [{"text": "a"}, {"text": ""}, {"text": "b"}])
    said = survey(Source(str(path)), lambda place, row: seen.append((place, row.id)))
    assert seen == [(0, "rows.jsonl:1"), (1, "rows.jsonl:3")]
    assert said.report.counts == {"empty text": 1}


def documented() -> list[tuple[str, str, str, str]]:
    """Each line of the documentation's tables: its file, the line, its columns and the outcome."""
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    found = []
    for line in text.split("\n"):
        cells = line.strip("| ").split(" | ")
        if len(cells) > 2 and cells[1].startswith("`{"):
            columns = cells[2].strip("`") if "=" in cells[2] else ""
            found.append((cells[0], cells[1].strip("`"), columns, cells[3 if columns else 2]))
    return found


@pytest.mark.parametrize(("line", "columns", "outcome"), [
    pytest.param(line, columns, outcome, id=name) for name, line, columns, outcome in documented()
])  # fmt: skip
def test_every_line_of_the_documentation_is_read_as_it_says(
    line: str, columns: str, outcome: str, tmp_path: Path
) -> None:
    names = dict(pair.split("=") for pair in columns.split())
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    if " from " in outcome:
        said = survey(Source(str(path), columns=names))
        assert said.report.read_as == outcome
        assert not set(names.values()) & set(said.report.unused)
    else:
        with pytest.raises(DataError, match=re.escape(outcome)):
            survey(Source(str(path), columns=names))


def test_the_documentation_has_lines() -> None:
    assert len(documented()) >= 26


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("question answer", "a Demonstration needs"),
        ("Prompt Chosen Rejected", "a PreferencePair needs"),
        ("content", "missing column text; a LabelledText needs .*{text: content}"),
        ("input output score", "a RatedCompletion needs"),
        ("a b", "a Demonstration needs"),
    ],
)
def test_the_likeliest_kind_says_what_it_lacks(names: str, said: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path, [dict.fromkeys(names.split(), "a")])
    with pytest.raises(DataError, match=said):
        survey(Source(str(path)))


@pytest.mark.parametrize("name", ["rows.arrow", "rows.tsv", "rows.txt"])
def test_other_types_of_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a")
    with pytest.raises(DataError, match="cannot tell its format"):
        survey(Source(str(tmp_path / name)))
