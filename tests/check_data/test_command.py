"""``alignlab check-data``: every kind of fault in one file, counted by hand."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignlab.check_data import command, survey
from alignlab.errors import ConfigError, DataError
from tests.data.files import jsonl
from tests.data.tokens import words

RUN = " ".join(f"w{k}" for k in range(15))


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, words))))


def pair(prompt: str, chosen: str, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Eleven usable lines and five that are refused; the numbers beside them are those of lines."""
    lines = [
        *(json.dumps(pair(f"question {k}:", f" yes {k}", " no")) for k in range(4)),  # 1-4
        json.dumps(pair("question 0:", " yes 0", " no")),  # 5 copies 1
        json.dumps(pair("question 1:", " no", " yes 1")),  # 6 contradicts 2
        *(json.dumps(pair("order:", f" {a}", f" {b}")) for a, b in ("ab", "bc", "ca")),  # 7-9
        json.dumps(pair("same:", " a", " a")),  # 10
        json.dumps(pair("empty:", " ", " a")),  # 11
        json.dumps({"prompt": "half:", "chosen": " a"}),  # 12
        json.dumps(pair("typed:", " a", 3)),  # 13
        "{broken",  # 14
        json.dumps(pair("glued", "on", " a")),  # 15
        json.dumps(pair(f"run: {RUN}", " a", " b", note="x")),  # 16
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    rows = [
        *(pair("question 2:", " yes 2", " no"), pair("question 3:", " maybe", " no")),
        *(pair(f"other: {RUN}", " a", " b"), pair("new:", " a", " b")),
    ]
    return jsonl(tmp_path, rows, "test.jsonl")


def test_every_planted_fault_is_counted(
    planted: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(planted, "--test", held_out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    data, shared = found["data"], found["overlap"]

    def lines(*numbers: int, **more: str) -> dict[str, Any]:
        return {"rows": len(numbers), "which": [f"rows.jsonl:{n}" for n in numbers], **more}

    unreadable = (
        "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )
    assert data["refused"] == {
        "chosen and rejected are identical": lines(10, detail=""),
        "empty completion": lines(11, detail="in 'chosen'"),
        "missing column 'rejected'": lines(12, detail=""),
        "wrong type in 'rejected'": lines(13, detail="wants a string, got int '3'"),
        "not readable as a row": lines(14, detail=unreadable),
    }
    assert (data["read"], data["kept"]) == (16, 11)
    assert data["repeated"] == {
        "copies of earlier rows": lines(5),
        "rows that others contradict": lines(2, 6),
        "rows in cycles of preferences": lines(2, 6, 7, 8, 9),
    }
    assert data["glued"] == ["rows.jsonl:15"]
    assert data["unused"] == {"note": 1}
    assert data["words"]["prompt"] == {
        **{"shortest": 1, "median": 2, "95 %": 16},
        **{"99 %": 16, "longest": 16},
    }
    assert shared["rows"] == ["test.jsonl:1"]
    assert shared["prompts"] == ["test.jsonl:1", "test.jsonl:2"]
    (passage,) = shared["passages"]
    assert (passage["text"], passage["train_id"], passage["test_id"]) == (
        *(RUN, "rows.jsonl:16"),
        "test.jsonl:3",
    )
    assert len(found["examples"]) == 10


def test_the_terminal_and_the_page_say_the_same(
    planted: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert call(planted, "--test", held_out, "--html", page) == 0
    said = capsys.readouterr()
    assert said.out.split("\n")[:4] == [
        f"{planted}: 11 of 16 rows kept",
        "  read as PreferencePair from prompt + chosen + rejected: plain text; copies of earlier "
        "rows: 1; rows that others contradict: 2; rows in cycles of preferences: 5",
        f"{held_out}: 4 of 4 rows kept",
        "  read as PreferencePair from prompt + chosen + rejected: plain text",
    ]
    for line in (
        f"Refused: 5 rows of {planted}",
        "     1  empty completion                   rows.jsonl:11 (in 'chosen')",
        "  1 of 4 test rows are training rows, too: test.jsonl:1",
        "  2 of 4 test prompts are training prompts, too: test.jsonl:1, test.jsonl:2",
        "  columns that nothing reads: note (1 rows)",
    ):
        assert line in said.out.split("\n")
    assert said.err == f"page: {page}\n"
    html = page.read_text()
    assert "<td>rows that others contradict</td><td>rows.jsonl:2, rows.jsonl:6</td>" in html
    assert f"<td>{RUN}</td>" in html


def test_quarantine(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "quarantine.jsonl"
    assert call(planted, "--quarantine", out) == 0
    rows = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert [(row["id"].partition(":")[2], row["reasons"][0][:20]) for row in rows] == [
        *(("2", "another row says the"), ("6", "another row says the")),
        *((str(n), "in a cycle of prefer") for n in (7, 8, 9)),
        *(("10", "chosen and rejected "), ("11", "empty completion in ")),
        *(("12", "missing column 'reje"), ("13", "wrong type in 'rejec")),
        ("14", "not readable as a ro"),
    ]
    assert f"10 rows in quarantine: {out}" in capsys.readouterr().err


def test_lengths_in_tokens_come_from_a_sample_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words().save_pretrained(tmp_path / "words")
    path = jsonl(tmp_path, [{"prompt": "a", "completion": " b c"}] * 7)
    assert call(path, "--tokenizer", tmp_path / "words") == 0
    title = f"Lengths in tokens of {tmp_path / 'words'} ("
    assert f"{title}all 7 usable rows)\n" in capsys.readouterr().out
    monkeypatch.setattr(survey, "SAMPLE", 5)
    assert call(path, "--tokenizer", tmp_path / "words") == 0
    said = capsys.readouterr().out
    assert f"{title}a random sample of 5 of 7 usable rows)\n" in said
    assert "  trained                             3       3     3     3        3" in said
    assert call(path, "--tokenizer", tmp_path / "words", "--json") == 0
    found = json.loads(capsys.readouterr().out)["tokens"]
    assert (found["sampled"], found["of"], found["lengths"]["prompt"]["median"]) == (5, 7, 2)


def test_exit_status(tmp_path: Path, planted: Path) -> None:
    good = jsonl(tmp_path, [pair("p", " a", " b")], "good.jsonl")
    assert (call(good), call(good, "--strict")) == (0, 0)
    assert (call(planted), call(planted, "--strict")) == (0, 2)
    judged = jsonl(tmp_path, [{"prompt": "p", "completion": " a", "label": True}], "judged.jsonl")
    assert call(judged) == 2  # training on it would stop
    with pytest.raises(DataError, match="none of its 1 rows can be used"):
        call(jsonl(tmp_path, [pair("p", " a", " a")], "bad.jsonl"))


def test_how_rows_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": "q", "answer": " a", "split": part} for part in ("train", "test", "test")]
    path = jsonl(tmp_path, rows)
    words = ("--columns", "prompt=question", "--columns", "completion=answer", "--json")
    assert call(path, *words[:2], "--json", "--split", "test", "--as", "prompt") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["kept"], data["read_as"]) == (2, "Prompt from prompt: plain text")
    assert call(path, *words, "--split", "train", "--test", path, "--test-split", "test") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["data"]["kept"], found["test"]["kept"]) == (1, 2)
    assert found["data"]["data_module"] == "alignlab.data.modules.DemonstrationData"
    for wrong in (("--columns", "prompt"), ("--columns", "=x"), ("--test-split", "test")):
        with pytest.raises(ConfigError, match=wrong[0]):
            call(path, *wrong)


def test_files_are_written_though_nobody_reads_on(planted: Path, tmp_path: Path) -> None:
    """As in ``alignlab check-data ... | head``."""
    out = tmp_path / "quarantine.jsonl"
    words = [sys.executable, "-m", "alignlab.cli", "check-data", planted, "--quarantine", out]
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 141
    assert out.read_text().count("\n") == 10


def test_the_transcript_in_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "Answer the question in one short sentence, and say so if you do not know the answer. "
    texts = [
        ("Which planet is the largest?", " Jupiter.", " Saturn."),
        ("Name a prime number above ten.", " Eleven is one.", " Twelve."),
        ("Who wrote Faust?", " Goethe.", " Schiller, I think."),
        ("Is water wet?", " It depends on what you call wet.", " Yes."),
        ("Name a colour.", " Blue.", " Dog."),
        ("Spell cat.", " c-a-t", " k-a-t"),
    ]
    rows = [pair(f"{asked}Question: {q}\nAnswer:", *answers) for q, *answers in texts]
    largest, colour, dry = rows[0]["prompt"], rows[4]["prompt"], rows[3]["prompt"]
    rows += [
        rows[1],
        pair(colour, " Dog.", " Blue."),
        pair(largest, " Jupiter.", " Jupiter."),
        pair(rows[2]["prompt"], " ", " Schiller, I think."),
        pair(dry.replace("wet", "dry"), "No.", " Yes.", note="joined"),
    ]
    test = [
        rows[2],
        pair(largest.replace("largest", "smallest"), " Mercury.", " Pluto."),
        pair("Tell me a story about a fox.", " Once there was a fox.", " No."),
    ]
    with jsonl(tmp_path, rows, "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "cut o\n')
    jsonl(tmp_path, test, "test.jsonl")
    documented = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    console = documented.partition("$ alignlab check-data ")[2].partition("\n```")[0]
    words, _, shown = console.partition("\n")
    assert call(*words.split()) == 0
    said = capsys.readouterr()
    first, dots, last = shown.partition("\n...\n")
    assert dots
    assert said.out.startswith(f"{first}\n\n")
    assert said.err == f"{last}\n"


def test_a_chat_format_needs_a_tokenizer(planted: Path) -> None:
    with pytest.raises(ConfigError, match="Give --tokenizer, too"):
        call(planted, "--chat-format", "llama3")


def test_kinds_are_those_of_the_survey() -> None:
    assert tuple(survey.KINDS) == command.KINDS
