"""Greedy answers, held word for word against the right ones, and counted by group."""

import csv
import json
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.models import Policy
from alignlab.stages.exact_match import answer, answer_questions, read_questions


def greedy(policy: Policy, prompt: str, length: int) -> list[str]:
    """The policy's most likely words, one uncached forward of the plain model a token."""
    import torch

    ids = policy.tokenizer(prompt)["input_ids"]
    ids = [policy.tokenizer.bos_token_id, *ids]
    said = []
    for _ in range(length):
        with torch.no_grad():
            token = int(policy.model(torch.tensor([ids])).logits[0, -1].argmax())
        said.append(policy.tokenizer.decode([token]))
        ids.append(token)
    return said


def questions(path: Path, rows: list[tuple[str, str, str, str, int]]) -> str:
    names = ("prompt", "completion", "kind", "task", "shots")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def policy(build, tmp_path) -> Policy:
    made = build("llama", spread=0.6)
    made.save(tmp_path / "s0")
    return made


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_shares_of_right_answers_by_group(policy, tmp_path):
    """Four questions: of task a one of two is right, of b the only one, of kind y none."""
    prompts = ["w3 w4", "w5", "w6 w7 w8", "w9"]
    said = ["".join(greedy(policy, prompt, 3)) for prompt in prompts]
    assert all(len(text.split()) == 3 for text in said)  # no end-of-text token among them
    file = questions(
        tmp_path / "questions.jsonl",
        [
            (prompts[0], said[0], "x", "a", 0),
            (prompts[1], " w3 w3 w4", "x", "a", 0),
            (prompts[2], said[2], "x", "b", 0),
            (prompts[3], said[3] + " w3", "y", "b", 2),
        ],
    )
    folder = str(tmp_path / "s0")
    stop = " w31" if "w31" not in " ".join(said) else " w30"
    answer_questions(
        out=tmp_path / "out",
        policies={"one": folder, "runs": [folder]},
        questions=file,
        seed=7,
        max_new_tokens=3,
        stop=stop,
    )
    rows = read(tmp_path / "out" / "accuracy.csv")
    assert [row["condition"] for row in rows] == ["one"] * 3 + ["runs"] * 3
    first = rows[0]
    assert (first["kind"], first["task"], first["shots"], first["seed"]) == ("x", "a", "0", "7")
    assert [float(row["accuracy"]) for row in rows[:3]] == [0.5, 1.0, 0.0]
    assert [row["n"] for row in rows[:3]] == ["2", "1", "1"]
    assert float(first["accuracy_lo"]) == pytest.approx(0.0945312, abs=1e-6)  # Wilson, 1 of 2
    assert float(first["accuracy_hi"]) == pytest.approx(0.9054688, abs=1e-6)
    kinds = read(tmp_path / "out" / "kinds.csv")
    assert [(row["kind"], row["shots"], row["n"]) for row in kinds[:2]] == [
        ("x", "0", "3"),
        ("y", "2", "1"),
    ]
    assert float(kinds[0]["accuracy"]) == pytest.approx(2 / 3, abs=1e-6)
    lines = (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    texts = [json.loads(line) for line in lines]
    assert [text["answer"] for text in texts[:3]] == [said[0], said[2], said[3]]


def test_an_answer_ends_with_its_first_stop(policy, tmp_path):
    words = greedy(policy, "w3 w4", 4)
    file = questions(tmp_path / "q.jsonl", [("w3 w4", "".join(words[:2]), "x", "a", 0)])
    (said,) = answer(policy, read_questions(file), words[1], 4, 8)
    cut = words.index(words[1]) + 1
    assert said == "".join(words[:cut])


def test_runs_of_a_grid_are_told_apart_without_their_seed(policy, tmp_path):
    for name in ("limit64-s0", "limit128-s0"):
        policy.save(tmp_path / name)
    file = questions(tmp_path / "q.jsonl", [("w3", " w4", "x", "a", 0)])
    folders = [str(tmp_path / name) for name in ("limit64-s0", "limit128-s0")]
    answer_questions(
        out=tmp_path,
        policies={"rows": folders},
        questions=file,
        seed=0,
        max_new_tokens=2,
        stop=" w5",
    )
    found = [row["condition"] for row in read(tmp_path / "accuracy.csv")]
    assert found == ["rows-limit64", "rows-limit128"]


def test_bad_input_says_what_is_wrong(policy, tmp_path):
    file = questions(tmp_path / "q.jsonl", [("w3", " w4", "x", "a", 0)])
    with pytest.raises(ConfigError, match="is 2 tokens"):
        answer(policy, read_questions(file), " w3 w4", 2, 8)
    (tmp_path / "bare.jsonl").write_text('{"prompt": "w3", "completion": " w4", "kind": "x"}\n')
    with pytest.raises(DataError, match=r"bare\.jsonl:1: a question lacks task, shots"):
        read_questions(str(tmp_path / "bare.jsonl"))
    (tmp_path / "empty.jsonl").write_text('{"prompt": "w3", "completion": " ", "kind": "x"}\n')
    with pytest.raises(DataError, match=r"empty\.jsonl:1"):
        read_questions(str(tmp_path / "empty.jsonl"))
