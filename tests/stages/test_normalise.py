import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from alignlab.data.rows import Demonstration
from alignlab.data.sources import write_rows
from alignlab.errors import ConfigError, DataError
from alignlab.models import ScoreModel
from alignlab.rewards.model import ModelReward
from alignlab.stages.normalise import normalise_reward
from tests.rewards.test_model import save_tiny

SHOWN = [("a film", " good good film"), ("not", " good"), ("a", " bad film a film"), ("a", " a")]
OTHER = (["bad", "a film"], [" film", " not good"])


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "shown.jsonl"
    write_rows(path, [Demonstration(str(i), *texts) for i, texts in enumerate(SHOWN)])
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return save_tiny(tmp_path / "rm", LlamaForSequenceClassification, num_labels=1)


def shown_scores(folder: Path | str) -> torch.Tensor:
    prompts, completions = zip(*SHOWN, strict=True)
    return ModelReward(str(folder), device="cpu")(prompts, completions).double()


def test_given_completions_score_zero_and_differences_stay(tmp_path, folder, source) -> None:
    normalise_reward(out=tmp_path / "new", model=folder, source=source, batch_size=3)
    old, new = shown_scores(folder), shown_scores(tmp_path / "new")
    assert abs(float(old.mean())) > 0.01
    assert float(new.mean()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(new - new[0], old - old[0], atol=1e-5, rtol=0)
    before = ModelReward(folder, device="cpu")(*OTHER)
    after = ModelReward(str(tmp_path / "new"), device="cpu")(*OTHER)
    torch.testing.assert_close(after, before - float(old.mean()), atol=1e-5, rtol=0)
    record = json.loads((tmp_path / "new" / "normalisation.json").read_text())
    assert record["completions"] == 4
    assert record["mean_before"] == pytest.approx(float(old.mean()), abs=1e-6)


def test_unit_deviation_and_once_more(tmp_path, folder, source) -> None:
    """A second pass finds nothing left to do, and a value function is on the same scale."""
    for name, start in (("one", folder), ("two", tmp_path / "one")):
        normalise_reward(out=tmp_path / name, model=str(start), source=source, unit_deviation=True)
        scores = shown_scores(tmp_path / name)
        assert float(scores.mean()) == pytest.approx(0, abs=1e-5)
        assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-5)
    one, two = (ScoreModel.load(tmp_path / name) for name in ("one", "two"))
    assert two.shift == pytest.approx(one.shift, abs=1e-5)
    assert two.scale == pytest.approx(one.scale, abs=1e-5)


def test_what_is_stored_already_is_reckoned_with(tmp_path, source) -> None:
    settings = {"num_labels": 1, "score_shift": 2, "score_scale": 4}
    folder = save_tiny(tmp_path / "rm", LlamaForSequenceClassification, **settings)
    normalise_reward(out=tmp_path / "new", model=folder, source=source)
    assert float(shown_scores(tmp_path / "new").mean()) == pytest.approx(0, abs=1e-6)
    assert ScoreModel.load(tmp_path / "new").scale == 4


def test_one_completion_has_no_deviation(tmp_path, folder, source) -> None:
    with pytest.raises(DataError, match="its 1 completions all score"):
        normalise_reward(
            out=tmp_path / "new", model=folder, source=source, unit_deviation=True, limit=1
        )
    assert not (tmp_path / "new").exists()


def test_a_language_model_is_refused(tmp_path, source) -> None:
    folder = save_tiny(tmp_path / "lm", LlamaForCausalLM)
    with pytest.raises(ConfigError, match="has no trained score head"):
        normalise_reward(out=tmp_path / "new", model=folder, source=source)
