"""A tokenizer of whole words, for worlds whose vocabulary is known."""

from collections.abc import Sequence
from typing import Any

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def word_tokenizer(words: Sequence[str]) -> Any:
    """One token a word, the space before a word being part of it (as in GPT-2's byte-level BPE).

    So ``decode(encode(prompt + completion)[len(encode(prompt)):]) == completion`` with its leading
    space. No special token is added by itself; unknown words become ``<unk>``.

    Args:
        words: The vocabulary; ids are places in ``SPECIAL`` and then in it.

    Returns:
        A Hugging Face fast tokenizer with ``<pad>``, ``<bos>``, ``<eos>`` and ``<unk>``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *(f"Ġ{word}" for word in words)]
    ids = {token: i for i, token in enumerate(tokens)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,  # it would turn " ." into "."
    )
