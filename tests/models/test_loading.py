"""What is looked at before a model is loaded."""

import os
from typing import Any

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.files import seal
from alignlab.models import Lora
from alignlab.models.policy import Policy
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
