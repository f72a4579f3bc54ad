"""What is looked at before a model is loaded."""

import json
import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignlab.data.trees import collate
from alignlab.errors import ConfigError, DataError
from alignlab.files import seal
from alignlab.models import Lora, Policy, ScoreModel, backbone
from alignlab.models.loading import PACKAGES
from alignlab.rewards.classifier import ClassifierReward
from alignlab.rewards.model import check_trained_scorer
from tests.test_files import flip


def test_weights_that_changed_since_they_were_written_are_refused(build, tmp_path) -> None:
    build("llama").save(tmp_path)
    seal(tmp_path)
    Policy(str(tmp_path))
    flip(tmp_path / "model.safetensors", 3000)
    with pytest.raises(DataError, match=r"model\.safetensors is not what was written"):
        Policy(str(tmp_path))
    (tmp_path / "sealed.json").unlink()  # the change is meant
    Policy(str(tmp_path))


@pytest.mark.parametrize("size", [0, 900, 20_000])
def test_weights_that_end_too_soon_are_named(build, tmp_path, size: int) -> None:
    build("llama").save(tmp_path / "whole")
    Policy(str(tmp_path / "whole"), lora=Lora(rank=2)).save(tmp_path / "adapters")
    os.truncate(tmp_path / "adapters" / "adapter_model.safetensors", size // 2)
    with pytest.raises(ConfigError, match=r"adapters do not fit their model .*whole: Error while"):
        Policy(str(tmp_path / "adapters"))
    os.truncate(tmp_path / "whole" / "model.safetensors", size)
    with pytest.raises(ConfigError, match="whole does not hold a model: Error while"):
        Policy(str(tmp_path / "whole"))


def test_an_impossible_dropout_is_not_said_of_the_model(build, tmp_path) -> None:
    build("llama").save(tmp_path)
    for settings in ({"source": str(tmp_path)}, {"config": {"model_type": "llama"}}):
        with pytest.raises(ConfigError, match=r"^dropout must lie"):
            Policy(**settings, tokenizer=str(tmp_path), dropout=1.0)


def test_a_dropout_that_the_config_counts_in_whole_numbers(build, tmp_path) -> None:
    """MPT's config declares its rates as integers: 0 is taken, a share is refused in a sentence."""
    build("llama").save(tmp_path)
    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 1, "vocab_size": 64, "max_seq_len": 32}
    settings: Any = {"config": {"model_type": "mpt", **sizes}, "tokenizer": str(tmp_path)}
    assert not Policy(**settings, dropout=0.0).has_dropout
    with pytest.raises(ConfigError, match=r"takes no \w+ of 0.1: .* expected int"):
        Policy(**settings, dropout=0.1)


def test_an_attention_function_is_chosen(build, tmp_path, ragged) -> None:
    """It is what runs, and changes no log-prob; what is saved does not name it."""
    build("llama").save(tmp_path)
    batch = collate([replace(tree, completions=((4, 5, 6), (7, 8))) for tree in ragged])
    settings: Any = {"dtype": "float64", "layout": "flat"}
    called: list[int] = []
    found = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        called.append(1)
        return plain(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        plain = ALL_ATTENTION_FUNCTIONS["sdpa"]
        patch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", counted)
        for name in (None, "sdpa", "eager"):
            policy = Policy(str(tmp_path), attn_implementation=name, **settings)
            called.clear()
            found.append(policy(batch).logps)
            assert bool(called) == (name != "eager")
            scorer = ScoreModel(str(tmp_path), attn_implementation=name, **settings)
            called.clear()
            scorer(batch)
            assert bool(called) == (name != "eager")
    assert torch.equal(found[0], found[1])
    # The eager function takes its softmax in float32.
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-5)
    policy.save(tmp_path / "eager")
    assert "attn" not in (tmp_path / "eager" / "config.json").read_text()


def test_adapters_are_read_with_the_attention_function_that_is_asked_for(build, tmp_path) -> None:
    build("llama").save(tmp_path / "lm")
    Policy(str(tmp_path / "lm"), lora=Lora(rank=2)).save(tmp_path / "adapters")
    for lora in (None, Lora(rank=2)):
        policy = Policy(str(tmp_path / "adapters"), attn_implementation="eager", lora=lora)
        assert policy.whole_model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["flash_attention_2", "flash", "paged|eager", "org/kernel"])
def test_an_attention_function_that_is_not_installed_is_refused(build, tmp_path, name) -> None:
    build("llama").save(tmp_path)
    wanted = rf"attn_implementation: {re.escape(name)} is not .* installed here\. Set one of .*"
    for kind in (Policy, ScoreModel):
        with pytest.raises(ConfigError, match=wanted + r"eager, .*sdpa, or leave it out"):
            kind(str(tmp_path), attn_implementation=name)


def test_kernels_of_a_gpu_are_tried_on_it(build, tmp_path, monkeypatch) -> None:
    build("llama").save(tmp_path)
    placed: list[str] = []

    def gpu() -> str:
        placed.append("gpu")
        return "cpu"

    monkeypatch.setattr(backbone, "default_device", gpu)
    Policy(str(tmp_path))
    assert not placed
    monkeypatch.setitem(PACKAGES, "sdpa", lambda: True)
    Policy(str(tmp_path))
    assert placed == ["gpu"]


def test_an_attention_function_that_a_model_does_not_have_is_refused(build, tmp_path) -> None:
    build("gpt2").save(tmp_path)
    settings: Any = {"attn_implementation": "flex_attention"}
    with pytest.raises(ConfigError, match="GPT2LMHeadModel of transformers has no flex_attention"):
        Policy(str(tmp_path), **settings)
    with pytest.raises(ConfigError, match="GPT2LMHeadModel of transformers has no flex_attention"):
        Policy(config={"model_type": "gpt2"}, tokenizer=str(tmp_path), **settings)


@pytest.mark.parametrize("read", [Policy, ScoreModel, check_trained_scorer, ClassifierReward])
def test_a_missing_model_is_not_called_a_tokenizer(tmp_path, read) -> None:
    """Its tokenizer is the first that is read of it; one that was named is missing itself."""
    gone, there = tmp_path / "gone", tmp_path / "there"
    with pytest.raises(ConfigError, match=f"^no such folder for a model: {gone}[.] Make it first"):
        read(str(gone))
    there.mkdir()
    (there / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"^{there} does not hold a tokenizer: none of its"):
        read(str(there))
    (there / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"^{there} does not hold a tokenizer: "):
        read(str(there))


def test_a_tokenizer_that_was_named_is_missing_itself(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"^no such folder for a tokenizer: \./gone\. Make it"):
        Policy(config={"model_type": "llama"}, tokenizer="./gone")


def changed(folder: Path, file: str = "config.json", **values: Any) -> None:
    """Change values of a JSON file."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def has_code(folder: Path) -> None:
    """A model with a file of code, which must not run."""
    (folder / "own.py").write_text("open('ran', 'w')\nclass Own: pass\n")
    changed(folder, model_type="own", auto_map={"AutoConfig": "own.Own"})


def has_code_for_its_tokenizer(folder: Path) -> None:
    (folder / "own.py").write_text("open('ran', 'w')\nclass Own: pass\n")
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    changed(folder, "tokenizer_config.json", **own)


def is_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Path("objects")}, folder / "pytorch_model.bin")


def is_a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")


def is_in_the_hubs_cache(folder: Path) -> None:
    inside = folder / "snapshots" / "abc"
    inside.mkdir(parents=True)
    for file in [file for file in folder.iterdir() if file.is_file()]:
        file.rename(inside / file.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (has_code, r"needs code of its own \(auto_map in its files\)"),
        (has_code_for_its_tokenizer, r"needs code of its own \(auto_map in its files\)"),
        (is_pickled, "other Python objects than tensors"),
        (is_a_pointer, "model.safetensors: a pointer of Git LFS.* git lfs pull"),
        (is_in_the_hubs_cache, "is a folder of the hub's cache. Name .*snapshots/abc"),
        (partial(changed, quantization_config={"quant_method": "gptq", "bits": 4}), r"\(gptq\)"),
        (
            partial(
                changed,
                quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
            ),
            r"stored as codes \(bitsandbytes\), which are not read. Start from the same model",
        ),
        (partial(changed, intermediate_size=32), r"mlp.* has the shape \[\d+, 24\]|\[24, \d+\]"),
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(build, tmp_path, monkeypatch, change, said) -> None:
    monkeypatch.chdir(tmp_path)
    build("llama").save(tmp_path / "model")
    Policy(str(tmp_path / "model"))
    change(tmp_path / "model")
    with pytest.raises(ConfigError, match=said):
        Policy(str(tmp_path / "model"))
    assert not (tmp_path / "ran").exists()


def test_a_file_is_no_folder(build, tmp_path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ConfigError, match=r"model.gguf is a file. Name the folder that holds a mod"
    ):
        Policy(str(tmp_path / "model.gguf"))


def test_adapters_without_a_tokenizer_have_that_of_their_base(build, tmp_path, ragged) -> None:
    """As peft alone saves them."""
    build("llama").save(tmp_path / "base")
    adapted = Policy(str(tmp_path / "base"), lora=Lora(rank=2))
    adapted.save(tmp_path / "lora")
    for file in (tmp_path / "lora").glob("tokenizer*"):
        file.unlink()
    found = Policy(str(tmp_path / "lora"))
    assert found.tokenizer.get_vocab() == adapted.tokenizer.get_vocab()
    changed(tmp_path / "lora", "adapter_config.json", base_model_name_or_path="/nowhere/at/all")
    with pytest.raises(ConfigError, match="need the model '/nowhere/at/all', which does not exist"):
        Policy(str(tmp_path / "lora"))


def test_weights_that_are_left_out_are_said(build, tmp_path, caplog) -> None:
    """A config of fewer layers, or a head that the library does not know, would go unseen."""
    build("llama").save(tmp_path / "two")
    with caplog.at_level("WARNING"):
        Policy(str(tmp_path / "two"))
        ScoreModel(str(tmp_path / "two"))  # without the language model's head, as expected
    assert caplog.text == ""
    changed(tmp_path / "two", num_hidden_layers=1)
    Policy(str(tmp_path / "two"))
    assert re.search(
        r"two: 9 weights are not used by a LlamaForCausalLM, e\.g\. .*s\.1", caplog.text
    )
    changed(tmp_path / "two", num_hidden_layers=2, architectures=["LlamaForRewardModel"])
    caplog.clear()
    ScoreModel(str(tmp_path / "two"))
    assert "1 weights are not used by a LlamaForSequenceClassification, e.g. lm_head" in caplog.text


def test_a_scorer_of_more_classes_is_no_reward_model(build, tmp_path) -> None:
    build("llama").save(tmp_path / "lm")
    ScoreModel(str(tmp_path / "lm"), outputs=5).save(tmp_path / "five")
    with pytest.raises(
        ConfigError, match=r"score.weight has the shape \[5, 16\].* and \[1, 16\] is"
    ):
        ScoreModel(str(tmp_path / "five"))
