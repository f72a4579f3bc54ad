"""Dialogues: which are refused, and that no opening question is on both sides."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.worlds.hh import (
    gather_dialogues,
    make_up_dialogues,
    opening,
    read_dialogues,
    shuffle_pairs,
    write_prompts,
)
from tests.data.files import jsonl
from tests.data.tokens import bytewise


def asked(question: str, *more: str) -> str:
    turns = "".join(f" {reply}\n\nHuman: Go on.\n\nAssistant:" for reply in more)
    return f"\n\nHuman: {question}\n\nAssistant:{turns}"


def row(prompt: str, subset: str = "helpful-base", good: str = " Yes.", bad: str = " No.") -> Any:
    return {"chosen": prompt + good, "rejected": prompt + bad, "subset": subset}


def table(folder: Path) -> list[tuple[str, str, str, int]]:
    with (folder / "rows.csv").open(newline="") as file:
        return [(r["part"], r["what"], r["reason"], int(r["rows"])) for r in csv.DictReader(file)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_opening_is_what_the_person_says_first() -> None:
    assert opening(asked("Why?", "Because.", "So.")) == opening(asked("why? "))
    assert opening(asked("Why?")) != opening(asked("How?"))


def test_refused_dialogues_by_subset(tmp_path: Path) -> None:
    prompt = asked("Why?", "Because.")
    rows = [
        row(prompt),
        row(prompt, good=" No."),
        row(prompt, good="  "),
        row(prompt) | {"rejected": asked("How?") + " No."},
        row(prompt, "harmless-base"),
    ]
    source = jsonl(tmp_path, rows)
    ((name, (pairs, refusals)),) = read_dialogues(source, ["helpful-base"]).items()
    assert name == "helpful-base"
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        (prompt, " Yes.", " No.")
    ]
    assert refusals.counts == {
        "chosen and rejected are identical": 1,
        "empty completion": 1,
        "prompt of the pair is not shared": 1,
    }
    with pytest.raises(DataError, match=r"no rows of subset 'helpful-online'. Subsets found: \['h"):
        read_dialogues(source, ["helpful-online"])
    with pytest.raises(ConfigError, match=r"subsets must be of helpful-base, .*got \['funny'\]"):
        read_dialogues(source, ["funny"])


def test_no_opening_is_on_both_sides(tmp_path: Path) -> None:
    rows = [
        row(prompt, ("helpful-base", "helpful-rejection-sampled")[k % 2])
        for k in range(200)
        for prompt in (asked(f"Question {k}?"), asked(f"Question {k}?", "Well."))
    ]
    source = str(jsonl(tmp_path, rows))
    gather_dialogues(out=tmp_path / "all", source=source, held_out=0.25)
    train, test = (lines(tmp_path / "all" / f"{file}.jsonl") for file in ("train", "test"))
    assert len(train) + len(test) == 400
    assert 60 <= len(test) <= 140  # 100 expected, sd 12
    openings = [{opening(one["prompt"]) for one in side} for side in (train, test)]
    assert not openings[0] & openings[1]
    assert len(openings[0]) + len(openings[1]) == 200
    assert table(tmp_path / "all") == [
        (part, what, "", 200)
        for part in ("helpful-base", "helpful-rejection-sampled")
        for what in ("read", "kept")
    ]
    gather_dialogues(out=tmp_path / "few", source=source, held_out=0.25, limit=5)
    assert lines(tmp_path / "few" / "train.jsonl") == train[:5]


def test_the_hubs_own_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training pairs that share an opening with it are removed."""
    import datasets

    asked_for = []

    def load(path: str, split: str, data_dir: str):
        asked_for.append((path, split, data_dir))
        questions = {"train": ["One?", "Two?", "Three?"], "test": ["two?"]}[split]
        rows = [row(asked(q, split)) for q in questions]
        return datasets.Dataset.from_list(rows).remove_columns("subset")

    monkeypatch.setattr(datasets, "load_dataset", load)
    gather_dialogues(
        out=tmp_path, source="Anthropic/hh-rlhf", subsets=["helpful-base"], test_split="test"
    )
    assert asked_for == [
        ("Anthropic/hh-rlhf", split, "helpful-base") for split in ("test", "train")
    ]
    train, test = (lines(tmp_path / f"{file}.jsonl") for file in ("train", "test"))
    assert sorted(opening(one["prompt"]) for one in train) == ["human: one?", "human: three?"]
    assert [opening(one["prompt"]) for one in test] == ["human: two?"]
    assert ("helpful-base", "refused", "opening is also in the test part", 1) in table(tmp_path)


def test_a_side_without_pairs_is_one_clear_message(tmp_path: Path) -> None:
    source = str(jsonl(tmp_path, [row(asked("Why?"))]))
    with pytest.raises(DataError, match="no pair on the test side"):
        gather_dialogues(out=tmp_path, source=source, subsets=["helpful-base"], held_out=0.0)


def test_shuffled_pairs_are_the_same_in_another_order(tmp_path: Path) -> None:
    gather_dialogues(
        out=tmp_path,
        source=str(jsonl(tmp_path, [row(asked(f"Question {k}?")) for k in range(60)])),
        subsets=["helpful-base"],
    )
    orders = []
    for seed in (0, 1):
        shuffle_pairs(out=tmp_path / str(seed), source=str(tmp_path / "train.jsonl"), seed=seed)
        orders.append([one["id"] for one in lines(tmp_path / str(seed) / "pairs.jsonl")])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert sorted(orders[0]) == sorted(one["id"] for one in lines(tmp_path / "train.jsonl"))


def test_halves_share_no_opening_and_no_row_is_lost(tmp_path: Path) -> None:
    rows = [row(asked(f"Question {k // 2}?", *["So."] * (k % 2))) for k in range(80)]
    source = str(jsonl(tmp_path, rows))
    found = {}
    for half in ("a", "b"):
        for seed in (0, 1):
            shuffle_pairs(out=tmp_path / half / str(seed), source=source, seed=seed, half=half)
            found[half, seed] = lines(tmp_path / half / str(seed) / "pairs.jsonl")
    ids = {key: {one["id"] for one in pairs} for key, pairs in found.items()}
    assert ids["a", 0] == ids["a", 1]
    openings = [{opening(one["prompt"]) for one in found[half, 0]} for half in ("a", "b")]
    assert not openings[0] & openings[1]
    assert len(openings[0] | openings[1]) == 40
    assert len(found["a", 0]) + len(found["b", 0]) == 80
    assert 20 < len(found["a", 0]) < 60


def test_prompts_that_are_short_enough_each_once(tmp_path: Path) -> None:
    bytewise(trim_offsets=False).save_pretrained(tmp_path / "tokenizer")
    short, long = asked("Why?"), asked("Why?", "Be" + "cause. " * 9)
    rows = [row(short), row(long), row(short, good=" Oh."), row(asked("How?")), row(asked("Who?"))]
    write_prompts(
        out=tmp_path, source=str(jsonl(tmp_path, rows)), tokenizer=str(tmp_path / "tokenizer"),
        longest=len(short), limit=2,
    )  # fmt: skip
    assert [one["prompt"] for one in lines(tmp_path / "prompts.jsonl")] == [short, asked("How?")]
    assert table(tmp_path) == [
        ("prompts", "read", "", 5),
        ("prompts", "refused", f"prompt longer than {len(short)} tokens", 1),
        ("prompts", "refused", "prompt occurs twice", 1),
        ("prompts", "kept", "", 2),
    ]
    pair = lines(tmp_path / "pairs.jsonl")[1]
    assert pair["id"] == lines(tmp_path / "prompts.jsonl")[1]["id"]
    assert [pair[key] for key in ("prompt", "chosen", "rejected")] == [
        asked("How?"),
        " Yes.",
        " No.",
    ]
    rows = [row(short), row(asked("How?"), good=" Yes, yes."), row(asked("Who?"), bad=" No, no.")]
    write_prompts(
        out=tmp_path / "short", source=str(jsonl(tmp_path, rows)),
        tokenizer=str(tmp_path / "tokenizer"), longest=len(short), longest_reply=len(" Yes."),
    )  # fmt: skip
    assert [one["prompt"] for one in lines(tmp_path / "short" / "pairs.jsonl")] == [short]
    assert ("prompts", "refused", "a reply longer than 5 tokens", 2) in table(tmp_path / "short")


def test_made_up_dialogues_have_the_columns_and_warts_of_the_real_ones(tmp_path: Path) -> None:
    make_up_dialogues(out=tmp_path, pairs=60)
    columns = pq.read_table(tmp_path / "made_up.parquet").column_names
    assert columns == ["chosen", "rejected", "subset"]
    assert {row[2] for row in table(tmp_path) if row[1] == "refused"} == {
        "chosen and rejected are identical",
        "empty completion",
        "prompt of the pair is not shared",
    }
