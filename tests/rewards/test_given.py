"""Functions, sums and scorers of any kind as rewards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaForSequenceClassification

from alignlab.errors import ConfigError, DataError
from alignlab.models import Lora, Policy, ScoreModel
from alignlab.rewards.build import build_reward
from alignlab.rewards.classifier import ClassifierReward
from alignlab.rewards.given import FunctionReward, Scorer, WeightedSum
from alignlab.rewards.model import ModelReward
from alignlab.rewards.ngrams import NgramScorer
from alignlab.rewards.rule import Length
from alignlab.rewards.sentiment import SentimentReward
from tests.rewards.test_classifier import save_tiny_roberta
from tests.rewards.test_model import save_tiny

FILE = """
import numpy, torch

def characters(prompts, completions):
    return [len(text) for text in completions]

def whole(prompts, completions):
    return numpy.array([len(p + c) for p, c in zip(prompts, completions)])

class Words:
    def __call__(self, prompts, completions):
        return torch.tensor([len(text.split()) for text in completions])

def one(prompts, completions):
    return 1.0

def pairs(prompts, completions):
    return [[1, 2] for _ in completions]

def texts(prompts, completions):
    return completions

def fails(prompts, completions):
    return [1 / 0 for _ in completions]

def endless(prompts, completions):
    return [float("nan")] * len(completions)

number = 3
"""
ASKED = ["a ", "b"], ["one", "two words"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(
    ("name", "scores"), [("characters", [3, 9]), ("whole", [5, 10]), ("Words", [1, 2])]
)
def test_a_function_or_a_class_in_a_file(file: str, name: str, scores: list[float]) -> None:
    found = build_reward(f"{file}:{name}")(*ASKED)
    assert_close(found, torch.tensor(scores, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "has no function 'none'. Define it: def none"),
        ("number", "has no function 'number'"),
        ("one", "returned a float .1.0. for 2 completions. Return one number for each"),
        ("pairs", "returned a list .2 values. for 2 completions"),
        ("texts", "returned a list .2 values. for 2 completions"),
        ("fails", "failed on 2 completions: line 24 of own.py: ZeroDivisionError: division by"),
    ],
)
def test_a_function_that_cannot_be_used_is_said(file: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FunctionReward(file, name)(*ASKED)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.py\. Check the path"):
        FunctionReward("nowhere.py", "score")
    (tmp_path / "bad.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigError, match=r"cannot be read: line 1 of bad\.py: ModuleNotFound"):
        FunctionReward(str(tmp_path / "bad.py"), "score")


def test_a_sum_by_hand(file: str) -> None:
    found = build_reward(f"0.5*{file}:characters - 2*length + regex:two")(*ASKED)
    assert_close(found, torch.tensor([1.5 - 2, 4.5 - 4 + 1], dtype=torch.float64))
    with pytest.raises(DataError, match="FunctionReward: 2 of 2 scores are not finite"):
        build_reward(f"length + {file}:endless")(*ASKED)
    with pytest.raises(ConfigError, match="2 weights for 1 rewards"):
        WeightedSum([Length()], [1.0, 2.0])


def test_the_kind_of_a_scorer_is_read_from_its_folder(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"  # of alignlab fit
    save_tiny(model, LlamaForSequenceClassification, num_labels=1)
    for path in (model, model.parent):
        scorer = Scorer(str(path))
        assert isinstance(scorer.kind, ModelReward)
        assert scorer.kind.path == str(model)
        assert scorer(*ASKED).tolist() == scorer.kind(*ASKED).tolist()
    save_tiny_roberta(tmp_path / "classifier", ["NEGATIVE", "POSITIVE"])
    assert isinstance(Scorer(str(tmp_path / "classifier")).kind, ClassifierReward)
    NgramScorer(["good"]).save(tmp_path / "ngrams")
    assert isinstance(Scorer(str(tmp_path / "ngrams")).kind, SentimentReward)
    with pytest.raises(ConfigError, match="nowhere"):
        Scorer(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("outputs", [1, 2])
def test_adapters_of_a_scorer_are_a_scorer_too(
    build: Callable[..., Policy], tmp_path: Path, outputs: int
) -> None:
    """In their folder, and as the run of ``alignlab fit`` that trained them."""
    build("llama").save(tmp_path / "lm")
    trained = ScoreModel(str(tmp_path / "lm"), outputs=outputs, lora=Lora(rank=2))
    trained.save(model := tmp_path / "run" / "model")
    for path in (model, model.parent):
        if outputs == 1:
            assert isinstance(Scorer(str(path)).kind, ModelReward)
            continue
        with pytest.raises(ConfigError, match=r"no classes 'POSITIVE'.*it has LABEL_0, LABEL_1"):
            Scorer(str(path))
        with pytest.raises(ConfigError, match=r"one number, this model gives 2.*ClassifierReward"):
            ModelReward(str(model))
