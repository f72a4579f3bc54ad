"""A key-value cache that reserves room once, instead of copying itself at every token.

Hugging Face's ``DynamicCache`` concatenates: each new token copies all earlier keys and values. A
reserved layer writes new states into place and hands out views.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """One layer's keys and values, ``[R, heads, tokens, size]``, with room for ``capacity`` tokens.

    Room is made at the first update after the rows were chosen, so that a prompt shared by many
    completions is stored once until then. For sampling only: updates happen in place.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._room: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        if self._room is None:
            self._room = self._reserve(self.keys), self._reserve(self.values)
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        keys, values = self._room
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep (or repeat) the rows ``indices``."""
        super().batch_select_indices(indices)
        self._room = None

    def _reserve(self, states: Tensor) -> Tensor:
        rows, heads, tokens, size = states.shape
        room = torch.empty(
            rows, heads, self.capacity, size, dtype=states.dtype, device=states.device
        )
        room[:, :, :tokens] = states
        return room


def make_cache(config: Any, capacity: int) -> DynamicCache:
    """An empty cache for a model with this config, to hold at most ``capacity`` tokens.

    Only plain attention layers reserve; windowed and recurrent ones keep the library's own layers.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def select_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Keep, or repeat, these rows of a cache."""
    for layer in cache.layers:
        if isinstance(layer, ReservedLayer):
            layer.batch_select_indices(rows)
        else:  # recurrent layers have no other method, or one that leaves out their states
            layer.reorder_cache(rows)
