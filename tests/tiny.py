"""Sizes of the tiny models that the rollout tests sample from."""

from typing import Any

VOCABULARY = 32
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"intermediate_size": 24, "num_key_value_heads": 1},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "qwen2": SIZES | {"intermediate_size": 24, "num_key_value_heads": 1},
    "qwen3": SIZES | {"intermediate_size": 24, "num_key_value_heads": 2, "head_dim": 8},
}
EOS = 2
