"""Stages of the pipeline that only handle models."""

from pathlib import Path
from typing import Any

from alignlab.models.chat_format import ChatFormat
from alignlab.models.policy import Policy

SPECIAL = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}


def copy_policy(*, out: str | Path, source: str) -> None:
    """Stage: put a pretrained policy into a folder: the reference where none is trained.

    Args:
        out: Folder to write.
        source: Hub id or folder of a causal LM with its tokenizer.
    """
    Policy.load(source).save(out)


def make_up_policy(
    *, out: str | Path, config: dict[str, Any], chat_format: ChatFormat | None = None
) -> None:
    """Stage: a random policy whose tokens are bytes: stands in for a pretrained one in smoke runs.

    Args:
        out: Folder to write.
        config: ``model_type`` and its sizes, without the vocabulary's.
        chat_format: As in ``Policy``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_alone = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    folder = Path(out) / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=bytes_alone, **SPECIAL).save_pretrained(folder)
    Policy(config=config, tokenizer=str(folder), chat_format=chat_format).save(out)
