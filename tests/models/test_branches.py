"""Attention to one copy of a prompt is attention to a copy of one's own."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import DynamicCache

from alignlab.models.branches import BranchCache, BranchLayer, branch_attention, packed

HEADS, SHARED, SIZE = 4, 2, 3  # two query heads read each key head
LENGTHS = [[2, 3], [5, 5, 7]]
PROMPT = [0, 0, 0, 1, 2, 2, 3, 3, 3, 4]  # of each row


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def make_cache() -> tuple[BranchCache, list[tuple[Tensor, Tensor]]]:
    """A cache of one layer, and the keys and values of each prompt without its padding."""
    parts, prompts = [], []
    for lengths in LENGTHS:
        part = DynamicCache()
        keys = normal(len(lengths), SHARED, max(lengths), SIZE)
        values = normal(len(lengths), max(lengths), SHARED, SIZE).transpose(1, 2)
        part.update(keys, values, 0)
        parts.append(part)
        prompts += [(keys[p, :, :n], values[p, :, :n]) for p, n in enumerate(lengths)]
    return BranchCache(None, parts, LENGTHS, torch.tensor(PROMPT), new=6), prompts


def by_hand(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One row's output ``[HEADS, SIZE]``, a head at a time."""
    out = []
    for head in range(HEADS):
        k, v = (part[head // (HEADS // SHARED)] for part in (keys, values))
        weights = torch.stack([query[head] @ each / SIZE**0.5 for each in k]).exp()
        out.append((weights[:, None] * v).sum(0) / weights.sum())
    return torch.stack(out)


def test_each_row_sees_its_prompt_and_its_own_tokens() -> None:
    torch.manual_seed(0)
    cache, prompts = make_cache()
    own: list[list[tuple[Tensor, Tensor]]] = [[] for _ in PROMPT]
    rows = list(range(len(PROMPT)))
    kept_at = {1: [0, 2, 6, 7, 8, 9], 2: [2, 8, 9], 4: [8, 9]}  # prompts 1 and 2 end, then 0
    for t in range(6):
        if t in kept_at:
            order = packed(torch.tensor([row in kept_at[t] for row in rows]))
            cache.select(order)
            rows = [rows[r] for r in order.tolist()]
            assert sorted(rows) == kept_at[t]
        query = normal(len(rows), HEADS, 1, SIZE)
        new = normal(2, len(rows), SHARED, 1, SIZE)
        keys, values = cache.update(new[0], new[1], 0)
        found, _ = branch_attention(nn.Module(), query, keys, values, None)
        for r, row in enumerate(rows):
            own[row].append((new[0, r], new[1, r]))
            columns = [prompts[PROMPT[row]], *own[row]]
            whole = (torch.cat(part, 1) for part in zip(*columns, strict=True))
            assert_close(found[r, 0], by_hand(query[r, :, 0], *whole), rtol=1e-12, atol=1e-12)
    assert cache.lengths == [[5, 7]]


def test_a_prompt_is_held_once_and_dropped_with_its_rows() -> None:
    cache, _ = make_cache()
    layer = cache.layers[0]
    assert isinstance(layer, BranchLayer)
    assert [tuple(keys.shape[::2]) for keys, _ in layer.prompts] == [(2, 3), (3, 7)]
    cache.select(torch.tensor([0, 1, 2, 4, 6, 9]))  # four of five prompts are left
    assert sum(map(len, cache.lengths)) == 5
    cache.select(torch.tensor([0, 3, 4]))
    assert cache.lengths == [[2], [5, 5]]
    assert [tuple(keys.shape[::2]) for keys, _ in layer.prompts] == [(1, 2), (2, 5)]


def test_the_last_rows_fill_the_gaps() -> None:
    kept = torch.tensor([1, 0, 1, 1, 0, 1, 0, 1]).bool()
    assert packed(kept).tolist() == [0, 5, 2, 3, 7]
    assert packed(torch.ones(3).bool()).tolist() == [0, 1, 2]


def test_rows_that_stay_at_their_place_are_not_copied() -> None:
    cache, _ = make_cache()
    before = cache.layers[0].own[0].data_ptr()
    cache.update(*normal(2, len(PROMPT), SHARED, 1, SIZE), 0)
    cache.select(packed(torch.arange(len(PROMPT)) != 3))
    assert cache.layers[0].own[0].data_ptr() == before


@pytest.mark.parametrize("more", [{"softcap": 50.0}, {"sliding_window": 4}])
def test_other_attention_is_refused(more: dict[str, float]) -> None:
    cache, _ = make_cache()
    keys, values = cache.update(*normal(2, len(PROMPT), SHARED, 1, SIZE), 0)
    query = normal(len(PROMPT), HEADS, 1, SIZE)
    with pytest.raises(NotImplementedError, match=next(iter(more))):
        branch_attention(nn.Module(), query, keys, values, None, **more)
    with pytest.raises(NotImplementedError, match="mask"):
        branch_attention(nn.Module(), query, keys, values, torch.zeros(1, 1, 1, 1))
