"""The tokenizer of whole words."""

from alignlab.worlds.words import word_tokenizer


def test_a_word_is_one_token_and_completions_keep_their_space() -> None:
    tokenizer = word_tokenizer(["a", "film", "."])
    first = len(tokenizer) - 3
    prompt, completion = "a film", " film ."
    both = tokenizer.encode(prompt + completion)
    assert both == [first, first + 1, first + 1, first + 2]
    assert tokenizer.decode(both[len(tokenizer.encode(prompt)) :]) == completion
    assert tokenizer.encode("a book") == [first, tokenizer.unk_token_id]
    assert [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token] == [
        "<pad>",
        "<bos>",
        "<eos>",
    ]
