"""Texts of sampled completions."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from alignlab.data.trees import PromptTree
from alignlab.rollouts.samples import Samples

EOS = 2


def samples(index: int, *completions: tuple[int, ...]) -> Samples:
    tree = PromptTree(index, str(index), (1, 5), completions)
    logps = [torch.zeros(len(each)) for each in completions]
    return Samples([tree], [logps], [[each[-1] == EOS for each in completions]])


def test_completions_keep_their_space_and_lose_special_tokens(words: Path) -> None:
    """Token i is the word ``wi`` with the space before it; 1 begins a text and 2 ends it."""
    tokenizer = AutoTokenizer.from_pretrained(words)
    prompts, completions = samples(0, (7, 8, EOS), (9,)).texts(tokenizer)
    assert completions == [" w7 w8", " w9"]
    assert [text.ends for text in completions] == [True, False]  # type: ignore[attr-defined]
    assert len(set(prompts)) == 1
    assert prompts[0] + completions[0] == tokenizer.decode([5, 7, 8])


def test_joined_samples_keep_the_order_of_their_parts(words: Path) -> None:
    parts = [samples(3, (7,)), samples(1, (8,), (9, EOS))]
    joined = Samples.joined(parts)
    assert [tree.index for tree in joined.trees] == [3, 1]
    assert joined.finished == [[False], [False, True]]
    assert [[len(each) for each in row] for row in joined.token_logps] == [[1], [1, 2]]
    _, completions = joined.texts(AutoTokenizer.from_pretrained(words))
    assert completions == [" w7", " w8", " w9"]
