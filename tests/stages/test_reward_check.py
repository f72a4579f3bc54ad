"""Reward models on held-out pairs: scores against the model's own, gold's order, and the tables."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignlab.data.rows import PreferencePair, RowReport, Turn
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from alignlab.models import ScoreModel
from alignlab.results.csv_tables import read_table
from alignlab.stages.reward_check import _Gold, check_reward_model, kept_rows, score_gaps
from tests.data.files import jsonl

PAIRS = [
    ("w3", " w4 w5 w6", " w7"),
    ("w3", " w8", " w9 w10"),
    ("w11 w12", " w13 w14", " w15 w16"),
    ("w4 w4 w4", " w5 w6", " w6 w5 w7"),
]


class Rising:
    """The mean number of a completion's words; equal for the third pair."""

    def __call__(self, prompts: list[str], completions: list[str]):
        numbers = [[int(word[1:]) for word in text.split()] for text in completions]
        tied = {13: 0, 15: 0}
        return torch.tensor([tied.get(n[0], sum(n) / len(n)) for n in numbers], dtype=torch.float64)


GOLD = [5 - 7, 8 - 9.5, 0, 5.5 - 6]  # against the labels wherever it is not tied


@pytest.fixture
def folder(words: Path, tmp_path: Path) -> Path:
    from transformers import AutoTokenizer

    place = tmp_path / "reward_model" / "s0"
    torch.manual_seed(0)
    LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.5,
            pad_token_id=0,
            num_labels=1,
        )
    ).save_pretrained(place)
    AutoTokenizer.from_pretrained(words).save_pretrained(place)
    config = {"data": {"init_args": {"limit": 1000}}, "seed_everything": 7}
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    return place


def source(tmp_path: Path) -> str:
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    return str(jsonl(tmp_path, [*rows, {"prompt": "w3", "chosen": " ", "rejected": " w4"}]))


def expected(folder: Path) -> list[float]:
    """Score gaps, one text at a time."""
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for prompt, *completions in PAIRS:
        for completion in completions:
            ids = [1, *(int(word[1:]) for word in f"{prompt}{completion}".split()), 2]
            with torch.no_grad():
                states = model.model(torch.tensor([ids])).last_hidden_state
                scores.append(model.score(states[0, -1]).item())
    return [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_gaps_are_those_of_one_text_at_a_time(folder: Path, batch_size: int) -> None:
    model = ScoreModel.load(folder).eval()
    rows = [PreferencePair(str(k), *pair) for k, pair in enumerate(PAIRS)]
    trees = tokenise(rows, model.tokenizer, RowReport("rows"))
    assert score_gaps(model, trees, batch_size) == pytest.approx(expected(folder), abs=1e-5)


def test_tables(folder: Path, tmp_path: Path) -> None:
    check_reward_model(
        out=tmp_path / "out",
        models=[str(folder)],
        pairs=source(tmp_path),
        gold=f"{__name__}.Rising",
        gold_scale=2.0,
        columns={"pairs": "data.init_args.limit", "seed": "seed_everything"},
    )
    gaps = expected(folder)
    right = [gap > 0 for gap in gaps]
    labels, gold, itself = read_table(tmp_path / "out" / "accuracy.csv")
    assert [row["model"] for row in (labels, gold, itself)] == ["reward_model-s0"] * 2 + ["gold"]
    assert [row["against"] for row in (labels, gold, itself)] == ["labels", "gold", "labels"]
    assert (labels["pairs"], labels["seed"], itself["seed"]) == ("1000", "7", "")
    assert (labels["n"], labels["prompts"], labels["refused"], labels["cut"]) == (
        "4",
        "3",
        "1",
        "0",
    )
    assert float(labels["accuracy"]) == sum(right) / 4
    # Gold contradicts every label but the third's, where it is tied.
    assert (gold["n"], gold["prompts"]) == ("3", "2")
    assert float(gold["accuracy"]) == pytest.approx(
        (3 - right[0] - right[1] - right[3]) / 3, abs=1e-6
    )
    assert float(itself["accuracy"]) == 0.5 / 4
    losses = [float(torch.nn.functional.softplus(torch.tensor(-2.0 * gap))) for gap in GOLD]
    assert float(itself["log_loss"]) == pytest.approx(sum(losses) / 4, abs=1e-5)
    # Chosen is longer, shorter, as long, shorter.
    assert float(labels["longer"]) == 1.5 / 4
    bins = read_table(tmp_path / "out" / "calibration.csv")
    assert sum(int(row["n"]) for row in bins if row["against"] == "labels") == 4
    assert {row["model"] for row in bins} == {"reward_model-s0"}


def test_several_files_and_models_keep_their_own_counts(folder: Path, tmp_path: Path) -> None:
    files = {"all": source(tmp_path), "few": source(tmp_path)}
    check_reward_model(
        out=tmp_path / "out", models=[str(folder), str(folder)], pairs=files, max_length=6
    )
    rows = read_table(tmp_path / "out" / "accuracy.csv")
    assert [row["set"] for row in rows] == ["all", "few"] * 2
    # <bos> w11 w12 w13 w14 <eos> still fits; the last pair's longer side has a token more.
    assert [(row["n"], row["refused"]) for row in rows] == [("3", "2")] * 4
    cut = tmp_path / "cut"
    check_reward_model(
        out=cut, models=str(folder), pairs=files, max_length=6, truncation="keep_end"
    )
    assert [(row["n"], row["cut"]) for row in read_table(cut / "accuracy.csv")] == [("4", "1")] * 2


def test_wrong_columns_and_a_gold_without_opinion(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml has no data\.limit\. Check columns"):
        check_reward_model(
            out=tmp_path,
            models=str(folder),
            pairs=source(tmp_path),
            columns={"pairs": "data.limit"},
        )
    rows = [{"prompt": "w3", "chosen": " w13", "rejected": " w15"}]
    with pytest.raises(DataError, match="gold scores the two completions alike in every pair"):
        check_reward_model(
            out=tmp_path,
            models=str(folder),
            pairs=str(jsonl(tmp_path, rows, "tied.jsonl")),
            gold=f"{__name__}.Rising",
        )


def test_rows_and_trees_are_joined_by_place() -> None:
    """Ids repeat, and of two equal ones the first row is refused."""
    rows = [PreferencePair("c", f"p{k}", " w4", " w5") for k in range(3)]
    trees = [
        PromptTree(0, "c", (1,), ((4,), (5,)), row=1),
        PromptTree(1, "c", (1,), ((4,), (5,)), row=2),
    ]
    assert [row.prompt for row in kept_rows(rows, trees)] == ["p1", "p2"]


class Asked:
    """Counts the words of what was said, and of the whole conversation where it is given one."""

    def __call__(self, prompts: list[str], completions: list[str]):
        turns = [len(getattr(prompt, "messages", None) or []) for prompt in prompts]
        said = [len(text.split()) for text in completions]
        return torch.tensor([10.0 * a * b for a, b in zip(turns, said, strict=True)])


def test_gold_may_judge_conversations() -> None:
    prompt = (Turn("system", "be kind"), Turn("user", "hi"))
    pair = PreferencePair("r", prompt, (Turn("assistant", "a b c"),), (Turn("assistant", "a"),))
    assert _Gold(f"{__name__}.Asked", 1.0).gaps([pair]).tolist() == [10 * 2 * 3 - 10 * 2 * 1]
