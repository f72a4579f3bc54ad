"""Tiny float64 policies of each family, and ragged prompts for them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from beartype import BeartypeConf
from beartype.claw import beartype_package

from tests.tiny import FAMILIES, VOCABULARY

if TYPE_CHECKING:
    from alignlab.data.trees import PromptTree
    from alignlab.models.policy import Policy


def pytest_configure() -> None:
    """Check the types of all that goes into ``alignlab.functional``, and of what it returns.

    It has to be set before the package is imported, so nothing of alignlab is imported above.
    """
    os.environ["ALIGNLAB_CACHE"] = ""  # tests leave nothing in a user's cache
    beartype_package("alignlab.functional", conf=BeartypeConf(is_pep484_tower=True))


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder: one token a word, w3 to w31."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    ids = {w: i for i, w in enumerate([*special, *(f"Ġw{i}" for i in range(3, VOCABULARY))])}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    # ByteLevel's own pattern would part letters from digits.
    by_word = pre_tokenizers.Split(Regex(" ?[^ ]+"), "isolated")
    spaced = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([by_word, spaced])
    inner.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("words")
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def build(words: Path) -> Callable[..., "Policy"]:
    """Make a tiny policy of a family, with weights large enough for a peaked distribution."""

    from alignlab.models.policy import Policy

    def make(family: str = "llama", dtype: Any = "float64", spread: float = 0.4) -> "Policy":
        own_range = {"max_position_embeddings": 64} if family != "gpt2" else {}
        config = {"model_type": family, "initializer_range": spread, **own_range}
        policy = Policy(config=config | FAMILIES[family], tokenizer=str(words), dtype=dtype)
        policy.eval()
        return policy

    return make


@pytest.fixture
def ragged() -> "list[PromptTree]":
    """Seven prompts of 1 to 6 tokens, out of order of length, with indices that are not places."""
    from alignlab.data.trees import PromptTree

    generator = torch.Generator().manual_seed(5)
    trees = []
    for i, n in enumerate((3, 1, 6, 2, 3, 5, 1)):
        ids = torch.randint(3, VOCABULARY, (n - 1,), generator=generator).tolist()
        trees.append(PromptTree(10 * i + 3, f"p{i}", (1, *ids), ()))
    return trees
