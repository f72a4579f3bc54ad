"""Decode the rows of a batch token by token, with a cache where that is correct.

There are four ways. The first one that gives the logits of the training forward is chosen, once per
model:

*shared:* a prompt's keys and values are kept once for all its completions
(``alignlab.models.branches``). Most decoders.
*cached:* prompts of any lengths side by side, padded on the left; each row has a copy of its
prompt's keys and values. For attention with windows or caps, and virtual tokens.
*by length:* the same, but only prompts of one length side by side. For decoders that count
positions from the row's first column, and recurrent ones whose state padding would enter.
*uncached:* the whole row is read again for each token, as the training forward reads it. Always
right, but slow: for models with a cache that is not supported.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from alignlab.models.backbone import (
    UNREADABLE,
    check_sparse,
    needs_flat,
    probe_trees,
    relative_error,
)
from alignlab.models.branches import BranchCache, branching
from alignlab.models.cache import make_cache, select_rows
from alignlab.models.policy import Policy

log = logging.getLogger(__name__)
Decoding = Literal["shared", "cached", "by length", "uncached"]
FAST: tuple[Decoding, ...] = ("shared", "cached", "by length")
PROBED = 3  # tokens that are decoded when a way is tried
AT_ONCE, PARTS = 4096, 4  # prompts are read AT_ONCE tokens at a time, or in PARTS if larger


@dataclass(slots=True)
class Shared:
    """Rows that continue prompts whose keys and values are kept once."""

    cache: BranchCache
    position: Tensor  # [R] long, position of the next token
    hidden: Tensor  # [R, H] state that predicts each row's next token

    def select(self, rows: Tensor) -> None:
        """Keep these rows."""
        self.cache.select(rows)
        self.position, self.hidden = self.position[rows], self.hidden[rows]

    def step(self, policy: Policy, token: Tensor) -> None:
        """Read one token per row."""
        with branching(policy.model):
            hidden = policy.backbone(
                input_ids=token[:, None],
                position_ids=self.position[:, None],
                use_cache=True,
                past_key_values=self.cache,
            )[0]
        self.position = self.position + 1
        self.hidden = hidden[:, -1]


@dataclass(slots=True)
class Cached:
    """Rows whose keys and values, or recurrent states, are kept."""

    cache: Any
    seen: Tensor | None  # [R, columns] long, 0 on padding; None when no prompt is padded
    column: int  # columns written so far
    position: Tensor  # [R] long, position of the next token
    hidden: Tensor  # [R, H] state that predicts each row's next token
    argument: str  # what the architecture calls its cache

    def select(self, rows: Tensor) -> None:
        """Keep, or repeat, these rows."""
        select_rows(self.cache, rows)
        self.seen = None if self.seen is None else self.seen[rows]
        self.position, self.hidden = self.position[rows], self.hidden[rows]

    def step(self, policy: Policy, token: Tensor) -> None:
        """Read one token per row."""
        self.column += 1
        hidden = policy.backbone(
            input_ids=token[:, None],
            position_ids=self.position[:, None],
            attention_mask=None if self.seen is None else self.seen[:, : self.column],
            use_cache=True,
            **{self.argument: self.cache},
        )[0]
        self.position = self.position + 1
        self.hidden = hidden[:, -1]


@dataclass(slots=True)
class Uncached:
    """Decoding without a cache: every token needs a forward of the whole rows, as in training."""

    ids: Tensor  # [R, columns] long, with room for the tokens to come
    length: Tensor  # [R] long, columns that are filled
    hidden: Tensor  # [R, H] state that predicts each row's next token

    def select(self, rows: Tensor) -> None:
        """Keep, or repeat, these rows."""
        self.ids, self.length, self.hidden = self.ids[rows], self.length[rows], self.hidden[rows]

    def step(self, policy: Policy, token: Tensor) -> None:
        """Read one token per row."""
        self.ids[torch.arange(len(token), device=token.device), self.length] = token
        self.length = self.length + 1
        self.hidden = last_states(policy, self.ids, self.length)


def next_logits(policy: Policy, state: Shared | Cached | Uncached) -> Tensor:
    """``[R, V]`` logits of each row's next token."""
    return policy.head(state.hidden)


def last_states(policy: Policy, ids: Tensor, length: Tensor) -> Tensor:
    """``[..., R, H]`` states after ``length`` ``[..., R]`` columns of each row of ``ids``."""
    hidden: Tensor = policy.backbone(
        input_ids=ids[:, : int(length.max())],
        position_ids=None,
        attention_mask=None,
        use_cache=False,
    )[0]
    return hidden[torch.arange(len(ids), device=ids.device), length - 1]


def prefill(
    policy: Policy,
    prompts: Sequence[tuple[int, ...]],
    prompt: Tensor,
    new: int,
    decoding: Decoding,
) -> Shared | Cached | Uncached:
    """Read the prompts, for rows with room for ``new`` tokens more.

    Args:
        policy: Reads them.
        prompts: Token ids of each; those of similar length should stand together.
        prompt: ``[R]`` long, ascending: the prompt that each row continues.
        new: The most tokens of a row.
        decoding: How rows are continued.
    """
    check_sparse(policy.model, max(map(len, prompts)) + new)
    if decoding == "shared":
        return _prefill_shared(policy, prompts, prompt, new)
    state: Cached | Uncached
    if decoding == "uncached":
        ids, length = _side_by_side([ids + (0,) * new for ids in prompts], policy.device)
        length = length - new
        state = Uncached(ids, length, last_states(policy, ids, length))
    else:
        state = _prefill_cache(policy, prompts, new)
    state.select(prompt)
    return state


def _prefill_shared(
    policy: Policy, prompts: Sequence[tuple[int, ...]], prompt: Tensor, new: int
) -> Shared:
    """Read the prompts, padded on the right, where no token sees the padding."""
    if reason := needs_flat(policy.model):
        raise NotImplementedError(reason)
    parts, states = [], []
    size = max(AT_ONCE // max(map(len, prompts)), -(-len(prompts) // PARTS), 1)
    cut = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    for some in cut:
        ids, length = _side_by_side(some, policy.device)
        cache = DynamicCache(config=policy.model.config)
        hidden = policy.backbone(input_ids=ids, use_cache=True, past_key_values=cache)[0]
        states.append(hidden[torch.arange(len(ids), device=ids.device), length - 1])
        parts.append(cache)
    lengths = [list(map(len, some)) for some in cut]
    cache = BranchCache(policy.model.config, parts, lengths, prompt, new)
    position = torch.tensor(list(map(len, prompts)), device=prompt.device)[prompt]
    return Shared(cache, position, torch.cat(states)[prompt])


def _side_by_side(rows: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows ``[R, columns]`` padded on the right, and their lengths ``[R]``."""
    width = max(map(len, rows))
    ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=device)
    return ids, torch.tensor([len(row) for row in rows], device=device)


def _prefill_cache(policy: Policy, prompts: Sequence[tuple[int, ...]], new: int) -> Cached:
    """Read the prompts, padded on the left so that all end in one column."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    width = int(lengths.max())
    ids = torch.tensor([(0,) * (width - len(prompt)) + tuple(prompt) for prompt in prompts])
    column = torch.arange(width + new)
    seen = (column >= (width - lengths)[:, None]).long()
    # Learned positions count from the first real token, whatever padding precedes it.
    position = (column[:width] - (width - lengths)[:, None]).clamp(min=0)
    device = policy.device
    ragged = bool((lengths < width).any())
    cache = make_cache(policy.model.config, policy.virtual_tokens + width + new)
    backbone: Any = policy.backbone
    takes = signature(getattr(backbone, "forward", backbone)).parameters
    argument = "cache_params" if "cache_params" in takes else "past_key_values"
    hidden = backbone(
        input_ids=ids.to(device),
        position_ids=position.to(device),
        attention_mask=seen[:, :width].to(device) if ragged else None,
        use_cache=True,
        **{argument: cache},
    )[0]
    mask = seen.to(device) if ragged else None
    return Cached(cache, mask, width, lengths.to(device), hidden[:, -1], argument)


_FOUND: WeakKeyDictionary[nn.Module, Decoding] = WeakKeyDictionary()


@torch.no_grad()
def decoding_of(policy: Policy) -> Decoding:
    """The fastest way to decode that agrees with this model's training forward; tried once.

    Call it in eval mode. A slow way is logged.
    """
    if policy.model not in _FOUND:
        _FOUND[policy.model] = found = _try_out(policy)
        slow = {
            "by length": "prompts of one length at a time: its cache is wrong for padded rows",
            "uncached": "without a cache, which is slow: with its cache it gives other logits",
        }
        if found in slow:
            log.warning("%s is sampled %s", type(policy.model).__name__, slow[found])
    return _FOUND[policy.model]


def _try_out(policy: Policy) -> Decoding:
    """The first fast way whose logits on a few made-up rows are those of the training forward.

    Logits are compared up to a constant, which no probability depends on.
    """
    trees = probe_trees(policy.model.config, policy.virtual_tokens)
    rows = []
    for m, p in enumerate(trees.group.tolist()):
        prompt = trees.prompt_ids[p, : trees.prompt_lengths[p]].tolist()
        completion = trees.completion_ids[m, : trees.completion_lengths[m]].tolist()
        if len(prompt) + len(completion) > PROBED:
            rows.append((*prompt, *completion))
    ids, length = _side_by_side(rows, policy.device)
    steps = torch.arange(PROBED, device=policy.device)
    wanted = policy.head(last_states(policy, ids, length - PROBED + steps[:, None]))
    wanted = wanted - wanted.mean(-1, keepdim=True)
    dtype = policy.precision
    exact = torch.finfo(dtype).eps <= torch.finfo(torch.float32).eps
    for decoding in FAST:
        try:
            found = _read_on(policy, rows, decoding)
        except UNREADABLE as problem:
            log.debug("%s: %s %s", decoding, type(problem).__name__, problem)
            continue
        found = found - found.mean(-1, keepdim=True)  # a constant has no effect
        if relative_error(found, wanted, dtype) <= (1e-3 if exact else 0.1):
            return decoding
    return "uncached"


def _read_on(policy: Policy, rows: Sequence[tuple[int, ...]], decoding: Decoding) -> Tensor:
    """``[PROBED, R, V]`` logits that predict each of the rows' last ``PROBED`` tokens.

    Each row is in the batch twice, and the copies are dropped after a token, as a sampler does.
    """
    parts = [list(range(len(rows)))]
    if decoding == "by length":
        lengths = {len(row) for row in rows}
        parts = [[i for i, row in enumerate(rows) if len(row) == n] for n in lengths]
    found: dict[int, list[Tensor]] = {i: [] for i in range(len(rows))}
    for part in parts:
        places = torch.arange(len(part), device=policy.device)
        prompts = [rows[i][:-PROBED] for i in part]
        state = prefill(policy, prompts, places.repeat_interleave(2), PROBED, decoding)
        for t in range(PROBED):
            if t == 1:
                state.select(2 * places)
            copies = 2 if t == 0 else 1
            logits = next_logits(policy, state)
            for place, i in enumerate(part):
                found[i].append(logits[copies * place])
            token = torch.tensor([rows[i][t - PROBED] for i in part], device=policy.device)
            state.step(policy, token.repeat_interleave(copies))
    return torch.stack([torch.stack(found[i]) for i in range(len(rows))], 1)
