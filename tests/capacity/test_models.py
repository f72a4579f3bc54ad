"""Parameters and bytes of a tiny Llama, counted by hand."""

import pytest
import torch
from transformers import AutoConfig

from alignlab.capacity.models import ModelSpec, on_meta
from alignlab.errors import ConfigError
from tests.capacity.examples import (
    ADAPTERS,
    BLOCK,
    CONFIG,
    HIDDEN,
    LAYERS,
    LINEAR,
    PARAMETERS,
    VOCABULARY,
)


def spec(dtype: torch.dtype = torch.float32, **settings) -> ModelSpec:
    settings = {"scorer": False, "trained": True} | settings
    return ModelSpec("policy", AutoConfig.for_model(**CONFIG), dtype=dtype, **settings)


def test_all_weights_are_trained_without_adapters() -> None:
    size = spec().size
    assert size.parameters == size.trained == PARAMETERS
    assert size.weights == size.gradients == 4 * PARAMETERS
    assert size.block == size.block_gradients == 4 * BLOCK
    assert size.rest == 4 * (PARAMETERS - LAYERS * BLOCK)
    assert size.matmul == LAYERS * LINEAR


def test_tied_embeddings_count_once() -> None:
    config = AutoConfig.for_model(**CONFIG, tie_word_embeddings=True)
    size = ModelSpec("policy", config, False, torch.float32, trained=True).size
    assert size.parameters == PARAMETERS - VOCABULARY * HIDDEN


def test_a_frozen_model_has_no_gradients() -> None:
    size = spec(torch.bfloat16, trained=False, scorer=True).size
    assert (size.trained, size.gradients) == (0, 0)
    assert size.weights == 2 * (PARAMETERS - 64 * HIDDEN + 2 * HIDDEN)  # two labels, no logits


def test_adapters_are_float32_beside_bfloat16_weights() -> None:
    size = spec(torch.bfloat16, lora={"rank": 4, "targets": "all-linear"}).size
    assert size.trained == ADAPTERS
    assert size.gradients == 4 * ADAPTERS
    assert size.weights == 2 * PARAMETERS + 4 * ADAPTERS


@pytest.mark.parametrize(("double", "each"), [(False, 0.5625), (True, 0.516)])
def test_linear_layers_in_4_bits(double: bool, each: float) -> None:
    size = spec(torch.bfloat16, lora={"rank": 4, "targets": ["q_proj"]}, double=double).size
    adapters = LAYERS * 4 * 32
    kept = 2 * (PARAMETERS - LAYERS * LINEAR)
    assert size.weights == pytest.approx(each * LAYERS * LINEAR + kept + 4 * adapters)
    assert size.unpacked == 2 * 16 * 24


def test_a_shallow_model_has_fewer_layers() -> None:
    assert spec().shallow(1).size.parameters == PARAMETERS - BLOCK
    assert spec().depth == LAYERS


def test_of_experts_a_token_passes_some() -> None:
    config = AutoConfig.for_model(
        **{**CONFIG, "model_type": "mixtral"}, num_local_experts=4, num_experts_per_tok=2
    )
    size = ModelSpec("policy", config, False, torch.float32, trained=True).size
    attention, expert = LINEAR - 3 * 16 * 24, 3 * 16 * 24
    assert size.matmul == LAYERS * (attention + 4 * 16 + 2 * expert)  # the router is 4 x 16


def test_a_config_that_no_model_can_have() -> None:
    config = AutoConfig.for_model("gpt2", n_embd=15, n_head=4)
    with pytest.raises(ConfigError, match="policy: no model can be made of its config"):
        on_meta(ModelSpec("policy", config, False, torch.float32, trained=True))
