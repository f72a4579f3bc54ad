"""Token ids of texts, without and with special tokens that somebody wrote."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignlab.data.encode import Encoder, without_specials
from alignlab.data.rows import Refused
from alignlab.errors import ConfigError

BOS, EOS = 1, 2


@pytest.fixture
def tokenizer(words: Path) -> PreTrainedTokenizerBase:
    """Token i is the word ``wi``."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(words)
    return tokenizer


def test_the_beginning_of_text_comes_first_once_and_nothing_else_is_added(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    first, second, again = Encoder(tokenizer)([" w5 w6", "<bos> w7", " w5 w6"])
    assert first.ids == [BOS, 5, 6]
    assert first.offsets[0] == (0, 0)
    assert [first.offsets[i][1] for i in (1, 2)] == [3, 6]
    assert second.ids == [BOS, 7]
    assert again == first


def test_without_a_beginning_of_text_token_the_end_stands_for_an_empty_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert Encoder(tokenizer).start == BOS
    tokenizer.bos_token = None
    encode = Encoder(tokenizer)
    assert encode.start == EOS
    assert encode([" w5"])[0].ids == [5]
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="has no end-of-text token"):
        _ = Encoder(tokenizer).start


@pytest.mark.parametrize(
    ("ids", "found"), [([BOS, 5, EOS], [BOS, 5]), ([BOS, 5], [BOS, 5]), ([BOS, EOS], [BOS, EOS])]
)
def test_an_end_that_the_author_wrote_is_left_out(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], found: list[int]
) -> None:
    """Not the prompt's own, of which two tokens are given in the last case."""
    assert without_specials(Encoder(tokenizer), ids, min(2, len(found)), ends=True) == found


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([BOS, 5, BOS, 6], "beginning-of-text token inside the text"),
        ([BOS, 5, EOS, 6], "end-of-text token inside the completion"),
    ],
)
def test_special_tokens_inside_are_refused(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        without_specials(Encoder(tokenizer), ids, 2, ends=True)
