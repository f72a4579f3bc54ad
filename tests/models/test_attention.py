"""Attention in a row of trees: by a loop over tokens, in every way that a row can be cut."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignlab.models.attention import Branches, branches_of, tree_attention

TREES = [(3, [2, 4, 1]), (1, [1]), (2, [3]), (7, [1, 0, 2])]  # a prompt, and its completions


def sight() -> list[list[int]]:
    """The columns that each column sees."""
    seen: list[list[int]] = []
    for prompt, completions in TREES:
        begin = len(seen)
        root = list(range(begin, begin + prompt))
        seen += [root[: i + 1] for i in range(prompt)]
        for length in completions:
            first = len(seen)
            seen += [[*root, *range(first, first + i + 1)] for i in range(length)]
    return seen


def row() -> Branches:
    group = [p for p, (_, completions) in enumerate(TREES) for _ in completions]
    return branches_of(group, [p for p, _ in TREES], [n for _, ns in TREES for n in ns])


@pytest.mark.parametrize("block", [0, 4, 8, 13, 64])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_a_column_sees_its_prompt_and_its_branch(
    monkeypatch: pytest.MonkeyPatch, block: int, key_heads: int
) -> None:
    monkeypatch.setattr("alignlab.models.attention.BLOCK", block)
    seen = sight()
    draw = torch.Generator().manual_seed(0)

    def states(heads: int) -> Tensor:
        return torch.randn(1, heads, len(seen), 8, generator=draw, dtype=torch.float64)

    query, key, value = states(4), states(key_heads), states(key_heads)
    found, _ = tree_attention(nn.Module(), query, key, value, None, scaling=0.5, branches=row())
    for column, others in enumerate(seen):
        for head in range(4):
            own = head * key_heads // 4
            scores = 0.5 * key[0, own, others] @ query[0, head, column]
            wanted = scores.softmax(0) @ value[0, own, others]
            assert_close(found[0, column, head], wanted, rtol=0, atol=1e-12)


def test_without_branches_it_is_the_librarys_function() -> None:
    """Causal, with or without a mask, as other models in the process expect it."""
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is tree_attention
    query = torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    found, _ = tree_attention(nn.Module(), query, query, query, None)
    alone, _ = tree_attention(nn.Module(), query[:, :, :3], query[:, :, :3], query[:, :, :3], None)
    assert_close(found[:, :3], alone)
    everything = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    masked, _ = tree_attention(nn.Module(), query, query, query, everything)
    mean = (query @ query.mT / 2).softmax(-1) @ query
    assert_close(masked, mean.transpose(1, 2))


def test_what_it_does_not_know_is_refused() -> None:
    query = torch.zeros(1, 1, len(sight()), 2)
    with pytest.raises(ValueError, match="knows no sliding_window"):
        tree_attention(nn.Module(), query, query, query, None, branches=row(), sliding_window=2)
