"""Decoding with one copy of each prompt's keys and values for all its completions.

A usual cache holds a prompt once for each of its K completions, and every step reads all copies.
Here one matrix product computes the attention of all K completions to the prompt, and another that
of each completion to its own tokens. The softmax over both is the softmax over each, weighted by
their shares of the mass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

NAME = "alignlab_branches"
DROP_SHARE = 0.25  # prompts are dropped once this share of them has no row left
UNUSED = {"is_causal", "position_ids", "use_cache"}  # arguments that mean nothing for one token


class BranchCache(DynamicCache):
    """Keys and values of P prompts, and of the R rows that continue them.

    Rows stand on a grid of P prompts and ``each`` completions; row r is at place ``slot[r]``,
    counted prompt by prompt. For sampling only: updates happen in place.

    Args:
        config: Of the model.
        parts: Caches of the prompts, in order; those of a part are padded on the right.
        lengths: Tokens of the prompts of each part.
        prompt: ``[R]`` long, ascending: the prompt of each row.
        new: The most tokens that a row can have of its own.

    Raises:
        NotImplementedError: A layer keeps something else than the keys and values of all tokens.
    """

    def __init__(
        self,
        config: Any,
        parts: Sequence[DynamicCache],
        lengths: list[list[int]],
        prompt: Tensor,
        new: int,
    ) -> None:
        super().__init__(config=config)
        if any(type(layer) is not DynamicLayer for part in parts for layer in part.layers):
            raise NotImplementedError("some layers are not plain attention")
        number = torch.arange(len(prompt), device=prompt.device) - torch.searchsorted(
            prompt, prompt
        )
        self.each = int(number.max()) + 1
        self.slot = prompt * self.each + number
        self.layers = []
        for layers in zip(*(part.layers for part in parts), strict=True):
            prompts = [(each.keys.contiguous(), each.values.contiguous()) for each in layers]
            self.layers.append(BranchLayer(self, prompts, len(prompt), new))
        self._set_lengths(lengths)

    def _set_lengths(self, lengths: list[list[int]]) -> None:
        """Note which columns of each part are padding ``[P, 1, 1, columns]``, if any are."""
        self.lengths, self.padding = lengths, list[Tensor | None]()
        for own in lengths:
            end = torch.tensor(own, device=self.slot.device)[:, None, None, None]
            column = torch.arange(max(own), device=end.device)
            self.padding.append(column >= end if min(own) < max(own) else None)

    def select(self, rows: Tensor) -> None:
        """Keep ``rows``; those that stay at their place are not copied."""
        self.slot = self.slot[rows]
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for layer in self.layers:
            layer.select(rows, moved)
        counts = list(map(len, self.lengths))
        used = torch.zeros(sum(counts), dtype=torch.bool, device=rows.device)
        used[self.slot // self.each] = True
        if int(used.sum()) > (1 - DROP_SHARE) * len(used):
            return
        place = used.cumsum(0) - 1
        self.slot = place[self.slot // self.each] * self.each + self.slot % self.each
        kept = [part.nonzero()[:, 0] for part in used.split(counts)]
        lengths = [[n[p] for p in k.tolist()] for n, k in zip(self.lengths, kept, strict=True)]
        for layer in self.layers:
            layer.prompts = [
                (keys[k, :, : max(own)], values[k, :, : max(own)])
                for (keys, values), k, own in zip(layer.prompts, kept, lengths, strict=True)
                if own
            ]
        self._set_lengths([own for own in lengths if own])


class BranchLayer(DynamicLayer):
    """One layer of a ``BranchCache``.

    Args:
        cache: The cache that it belongs to.
        prompts: Keys and values of each part, ``[P, heads, tokens, size]``.
        rows: R.
        new: Room for each row's own tokens.
    """

    def __init__(
        self, cache: BranchCache, prompts: list[tuple[Tensor, Tensor]], rows: int, new: int
    ) -> None:
        super().__init__()
        self.cache, self.prompts, self.filled = cache, prompts, 0
        _, heads, _, size = prompts[0][0].shape
        self.own = tuple(part.new_empty(rows, heads, new, size) for part in prompts[0])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the states ``[R, heads, 1, size]`` of one token; return those of own tokens."""
        for room, states in zip(self.own, (key_states, value_states), strict=True):
            room[:, :, self.filled : self.filled + 1] = states
        self.filled += 1
        self.keys, self.values = (room[:, :, : self.filled] for room in self.own)
        setattr(self.keys, NAME, self)  # an attention function gets the keys, but no cache
        return self.keys, self.values

    def select(self, rows: Tensor, moved: Tensor) -> None:
        """Keep ``rows``, of which those at the places ``moved`` come from another place."""
        for room in self.own:
            room[moved, :, : self.filled] = room[rows[moved], :, : self.filled]
        self.own = tuple(room[: len(rows)] for room in self.own)

    def at_prompts(self, query: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """``attend`` of each row's ``query`` ``[R, heads, queries, size]`` to its prompt."""
        cache, counts = self.cache, list(map(len, self.cache.lengths))
        prompts, each, (heads, queries, size) = sum(counts), cache.each, query.shape[1:]
        grid = query.new_zeros(prompts * each, heads, queries, size)
        grid = grid.index_copy_(0, cache.slot, query).view(prompts, each, heads, queries, size)
        grid = grid.transpose(1, 2).reshape(prompts, heads, each * queries, size)
        parts = [
            attend(part, keys, values, scaling, padding)
            for part, (keys, values), padding in zip(
                grid.split(counts), self.prompts, cache.padding, strict=True
            )
        ]

        def rows(found: tuple[Tensor, ...]) -> Tensor:
            whole = torch.cat(found).view(prompts, heads, each, queries, -1).transpose(1, 2)
            return whole.reshape(prompts * each, heads, queries, -1)[cache.slot]

        out, mass = zip(*parts, strict=True)
        return rows(out), rows(mass)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention ``[B, heads, queries, size]``, and the logarithm of its denominator.

    Args:
        query: ``[B, heads, queries, size]``.
        keys: ``[B, heads, tokens, size]``.
        values: The same.
        scaling: Factor on the scores.
        hidden: Tokens that are not seen, bool, broadcast to ``[B, heads, queries, tokens]``.
    """
    scores = query @ keys.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scaling
    if hidden is not None:
        scores = scores.masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1).to(values.dtype) @ values, scores.logsumexp(-1, keepdim=True)


def branch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one token a row to its prompt and to the row's own tokens.

    An attention function as transformers calls it: ``query`` ``[R, heads, 1, size]``; ``key`` and
    ``value`` are what ``BranchLayer.update`` returned.

    Raises:
        NotImplementedError: The model asks for more than softmax attention (a window, a cap).
    """
    given = {name for name, setting in others.items() if setting is not None} - UNUSED
    if attention_mask is not None or given:
        raise NotImplementedError(f"attention with {', '.join(sorted(given)) or 'a mask'}")
    layer: BranchLayer = getattr(key, NAME)
    rows, heads, _, size = query.shape
    scaling = size**-0.5 if scaling is None else scaling
    query = query.reshape(rows, key.shape[1], -1, size)  # heads that share keys stand together
    out, mass = attend(query, key, value, scaling)
    of_prompt, prompt_mass = layer.at_prompts(query, scaling)
    out = out + (prompt_mass - mass).sigmoid() * (of_prompt - out)
    return out.to(query.dtype).reshape(rows, 1, heads, size), None


AttentionInterface.register(NAME, branch_attention)


@contextmanager
def branching(model: Any) -> Iterator[None]:
    """Attention by ``branch_attention`` inside."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def packed(kept: Tensor) -> Tensor:
    """Which row comes to each place when only those ``kept`` ``[R]`` bool stay.

    The last rows fill the gaps of those that go, so that few rows move.
    """
    count = int(kept.sum())
    order = torch.arange(count, device=kept.device)
    order[~kept[:count]] = kept[count:].nonzero()[:, 0] + count
    return order
