"""A transformer so small that everything it can say is listed in an enumerable world."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from alignlab.data.trees import PromptTrees, collate
from alignlab.models import Policy
from alignlab.worlds.enumerable import EnumerableWorld, random_world

torch.set_num_threads(1)
TinyWorld = tuple[Policy, PromptTrees, EnumerableWorld]


@pytest.fixture
def tiny_world(tmp_path: Path) -> Callable[..., TinyWorld]:
    """A Llama of 5,300 parameters, all it can say, and the world whose reference it is."""

    def make(vocabulary: int, length: int, prompts: int) -> TinyWorld:
        words = ["<eos>", *(f"w{i}" for i in range(1, vocabulary))]
        inner = Tokenizer(
            models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<eos>")
        )
        PreTrainedTokenizerFast(
            tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>"
        ).save_pretrained(tmp_path)
        policy = Policy(
            config={
                "model_type": "llama",
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 16,
                "initializer_range": 0.3,  # so that the reference is not uniform
            },
            tokenizer=str(tmp_path),
            dtype="float64",
        )
        world, _ = random_world(0, vocabulary, length, prompts)
        trees = collate(world.trees())
        with torch.no_grad():
            ref_logps = policy(trees).logps.view(prompts, -1)
        return policy, trees, replace(world, ref_logps=ref_logps)

    return make
