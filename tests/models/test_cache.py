"""A reserved cache holds what the library's growing cache holds."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig

from alignlab.models.cache import make_cache, select_rows

CONFIG = LlamaConfig(num_hidden_layers=2)


def states(rows: int, tokens: int, seed: int) -> torch.Tensor:
    """``[R, heads, tokens, size]``."""
    return torch.randn(rows, 3, tokens, 4, generator=torch.Generator().manual_seed(seed))


def test_it_equals_the_librarys_cache_through_updates_and_selections() -> None:
    ours, theirs = make_cache(CONFIG, capacity=9), DynamicCache(config=CONFIG)
    rows = torch.tensor([0, 0, 1])
    for seed, (tokens, selected) in enumerate([(4, None), (1, rows), (1, None), (2, rows[1:])]):
        if selected is not None:
            select_rows(ours, selected)
            theirs.batch_select_indices(selected)
        count = [2, 3, 3, 2][seed]
        for layer in (0, 1):
            new = states(count, tokens, 10 * seed + layer), states(count, tokens, -1 - seed)
            for mine, other in zip(
                ours.update(*new, layer), theirs.update(*new, layer), strict=True
            ):
                assert torch.equal(mine, other)
    assert ours.get_seq_length() == theirs.get_seq_length() == 8


def test_new_tokens_are_written_in_place() -> None:
    cache = make_cache(CONFIG, capacity=6)
    cache.update(states(1, 2, 0), states(1, 2, 1), 0)
    second, _ = cache.update(states(1, 1, 2), states(1, 1, 3), 0)
    third, _ = cache.update(states(1, 1, 4), states(1, 1, 5), 0)
    assert second.data_ptr() == third.data_ptr()
    with pytest.raises(RuntimeError):
        cache.update(states(1, 3, 6), states(1, 3, 7), 0)  # beyond the capacity
