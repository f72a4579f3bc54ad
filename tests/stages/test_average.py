"""Averaged weights: of equal models the same, of linear heads by hand, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification

from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.rewards.model import ModelReward
from alignlab.stages.average import average_reward_models
from tests.rewards.test_model import save_tiny

ASKED = ["a film", "not", "a"], [" good", " bad film", " film"]


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Three models of one base, whose heads are multiples of one another."""
    first = save_tiny(tmp_path / "rm1", LlamaForSequenceClassification, num_labels=1)
    weights = load_file(f"{first}/model.safetensors")
    found = [first]
    for k in (2, 6):
        found.append(str(shutil.copytree(first, tmp_path / f"rm{k}")))
        scaled = weights | {"score.weight": k * weights["score.weight"]}
        save_file(scaled, f"{found[-1]}/model.safetensors", {"format": "pt"})
    return found


def scores(folder: Path | str) -> torch.Tensor:
    return ModelReward(str(folder), device="cpu")(*ASKED)


def change(folder: str, **config: object) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_linear_heads_by_hand(folders, tmp_path) -> None:
    """Heads w, 2 w and 6 w on one transformer: their mean is 3 w, and so are the scores."""
    average_reward_models(out=tmp_path / "mean", models=folders)
    assert_close(scores(tmp_path / "mean"), 3 * scores(folders[0]), atol=1e-5, rtol=1e-5)


def test_equal_models_stay_what_they_are(folders, tmp_path) -> None:
    """Bit by bit, also where a third of a sum of three is rounded."""
    average_reward_models(out=tmp_path / "mean", models=[folders[1]] * 3)
    one, mean = (ScoreModel.load(folder).state_dict() for folder in (folders[1], tmp_path / "mean"))
    assert all(torch.equal(one[name], mean[name]) for name in one)
    assert torch.equal(scores(tmp_path / "mean"), scores(folders[1]))


def test_a_common_scale_is_kept(folders, tmp_path) -> None:
    before = scores(folders[0])
    for folder in folders:
        change(folder, score_shift=0.5, score_scale=2.0)
    average_reward_models(out=tmp_path / "mean", models=folders)
    assert_close(scores(tmp_path / "mean"), (3 * before - 0.5) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_attention_heads": 4, "head_dim": 4, "num_key_value_heads": 4}, "head_dim 8 and 4"),
        ({"score_shift": 0.25}, r"score_shift is 0 and 0\.25"),
        ({"score_scale": 3.0}, "score_scale is 1 and 3"),
    ],
)
def test_unlike_models_are_refused(folders, tmp_path, config, message) -> None:
    change(folders[2], **config)
    with pytest.raises(ConfigError, match=f"rm1 and .*rm6 cannot be averaged: .*{message}"):
        average_reward_models(out=tmp_path / "mean", models=folders)


def test_other_tokenizers_are_refused(folders, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[1])
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folders[1])
    with pytest.raises(ConfigError, match="different chat templates"):
        average_reward_models(out=tmp_path / "mean", models=folders)
    tokenizer = AutoTokenizer.from_pretrained(folders[2])
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(folders[2])
    with pytest.raises(ConfigError, match="'new' is token 9 of one"):
        average_reward_models(out=tmp_path / "mean", models=folders[::2])


def test_one_model_and_none_with_a_head_are_refused(folders, tmp_path) -> None:
    with pytest.raises(ConfigError, match="two or more models"):
        average_reward_models(out=tmp_path / "mean", models=folders[:1])
    with pytest.raises(ConfigError, match="two or more models"):
        average_reward_models(out=tmp_path / "mean", models=folders[0])
    policy = save_tiny(tmp_path / "lm", LlamaForCausalLM)
    with pytest.raises(ConfigError, match="no trained score head"):
        average_reward_models(out=tmp_path / "mean", models=[folders[0], policy])
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="lora has adapters"):
        average_reward_models(out=tmp_path / "mean", models=[folders[0], str(tmp_path / "lora")])
