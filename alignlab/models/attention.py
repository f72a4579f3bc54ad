"""Attention in a row of prompt trees, piece by piece and without a mask of the whole row.

It replaces transformers' ``sdpa`` function and does the same, unless the model is called with
``branches``, which transformers passes to every attention layer. Then a completion sees only its
prompt and itself, whatever else is in the row. Long branches are causal calls of PyTorch's
kernel; trees, and completions of one prompt, that together have up to ``BLOCK`` tokens share a
call, under a small mask.

Tested on CPUs only. On a GPU the same calls are made, which is right but not yet fast for short
trees; docs/models.md says why no single kernel is called there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

BLOCK = 64  # tokens; measured with benchmarks/layouts.py: a kernel call costs as much as its cells
UNKNOWN = ("sliding_window", "position_bias", "softcap", "s_aux", "cache")


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries of one kernel call: the row's next ``tokens`` columns, and the keys that they see.

    Args:
        tokens: Number of columns.
        prompt: Number of the prompt's columns. The queries see these first columns of the last
            causal piece, and one another causally. With 0 and no ``block`` the piece is causal.
        block: The columns are whole trees: for each its prompt's and its completions' lengths. Or
            they are completions behind ``prompt``: a tree whose own prompt has no columns here.
    """

    tokens: int
    prompt: int = 0
    block: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Branches:
    """The pieces of a packed row, from left to right; together they are the row."""

    pieces: tuple[Piece, ...]
    _masks: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def cells(self) -> float:
        """Scores that the kernels compute; of a causal square it is half."""
        return sum(p.tokens**2 / (1 if p.block else 2) + p.prompt * p.tokens for p in self.pieces)

    def masks(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Masks to add to scores: ``[n, m + n]`` of n queries behind a prompt of m tokens, and
        ``[B, BLOCK, BLOCK]`` of blocks.

        The first is that of the longest prompt and completion; others are a part of it.
        """
        key = like.dtype, like.device
        if key not in self._masks:
            n = max((p.tokens for p in self.pieces if p.prompt and not p.block), default=0)
            m = max((p.prompt for p in self.pieces), default=0)
            behind = torch.ones(n, m + n, dtype=torch.bool).tril(m)
            blocks = _seen([p.block for p in self.pieces if p.block])
            self._masks[key] = _added(behind, like), _added(blocks, like)
        return self._masks[key]


def _added(seen: Tensor, like: Tensor) -> Tensor:
    mask = torch.zeros(seen.shape, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)
    return mask.to(like.device)


def _seen(blocks: list[tuple[tuple[int, ...], ...]]) -> Tensor:
    """``[B, BLOCK, BLOCK]`` bool: of its own tree, a column sees prompt and branch before it."""
    cells = [
        [(t, b) for t, sizes in enumerate(block) for b, n in enumerate(sizes) for _ in range(n)]
        for block in blocks
    ]
    filled = [row + [(-1, -1)] * (BLOCK - len(row)) for row in cells]
    tree, branch = torch.tensor(filled, dtype=torch.long).view(len(blocks), BLOCK, 2).unbind(2)
    same_tree = tree[:, :, None] == tree[:, None]
    same_branch = branch[:, :, None] == branch[:, None]
    return (same_tree & (same_branch | (branch == 0)[:, None])).tril()


def branches_of(group: Sequence[int], prompts: Sequence[int], lengths: Sequence[int]) -> Branches:
    """How the trees of a row are attended to.

    Args:
        group: ``[M]``, each completion's prompt, non-decreasing.
        prompts: ``[P]`` tokens.
        lengths: ``[M]`` tokens of the completions; 0 is a completion that is not in the row.
    """
    trees = [[n] for n in prompts]
    for p, n in zip(group, lengths, strict=True):
        if n:
            trees[p].append(n)
    pieces: list[Piece] = []
    for block in _neighbours(trees):
        first = block[0]
        if len(block) > 1 or (len(first) > 2 and sum(first) <= BLOCK):
            pieces.append(Piece(sum(map(sum, block)), block=tuple(map(tuple, block))))
        else:  # the first completion continues its prompt's call
            pieces.append(Piece(sum(first[:2])))
            for several in _neighbours([[n] for n in first[2:]]):
                others = tuple(n for (n,) in several)
                together = ((0, *others),) if len(others) > 1 else ()
                pieces.append(Piece(sum(others), prompt=first[0], block=together))
    return Branches(tuple(pieces))


def _neighbours(parts: list[list[int]]) -> list[list[list[int]]]:
    """Neighbouring trees or completions that fit into a block; a larger one stands alone."""
    blocks: list[list[list[int]]] = []
    room = 0
    for part in parts:
        if sum(part) > room:
            blocks.append([])
            room = BLOCK
        blocks[-1].append(part)
        room -= sum(part)
    return blocks


def packed_inputs(branches: Branches, device: torch.device) -> dict[str, Any]:
    """What a transformer is called with beside a packed row's ids and positions.

    The mask is not used. Having four dimensions, it keeps transformers from making one of the row.
    """
    return {"attention_mask": torch.zeros(1, 1, 1, 1, device=device), "branches": branches}


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    branches: Branches | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa``, which in a row of ``branches`` computes each of its pieces.

    Args:
        module: The attention layer.
        query: ``[R, heads, L, d]``; one row if there are branches.
        key: ``[R, key heads, L, d]``.
        value: As ``key``.
        attention_mask: Ignored if there are branches.
        dropout: Share of attention weights that are dropped.
        scaling: Factor on scores.
        branches: The pieces of the row.
        settings: What else the layer asks for.

    Returns:
        ``[R, L, heads, d]``, and no attention weights.

    Raises:
        ValueError: There are branches, and the layer asks for an option that they do not have.
    """
    if branches is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
    if asked := [name for name in UNKNOWN if settings.get(name) is not None]:
        raise ValueError(f"attention in branches knows no {', '.join(asked)}")
    repeats = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    behind, blocks = branches.masks(query)
    m = behind.shape[1] - behind.shape[0]
    block = iter(blocks)
    sizes = [piece.tokens for piece in branches.pieces]
    # Splitting has one gradient of the row's size, where slices would have one each.
    parts = zip(*(x.split(sizes, 2) for x in (query, key, value)), strict=True)
    found = []
    root: tuple[Tensor, Tensor] = key, value
    for piece, (q, k, v) in zip(branches.pieces, parts, strict=True):
        mask = None
        if piece.block:  # all of them see the prompt
            mask = F.pad(next(block)[: piece.tokens, : piece.tokens], (piece.prompt, 0))
        elif piece.prompt:
            mask = behind[: piece.tokens, m - piece.prompt : m + piece.tokens]
        if piece.prompt:
            k = torch.cat([root[0][:, :, : piece.prompt], k], 2)
            v = torch.cat([root[1][:, :, : piece.prompt], v], 2)
        elif not piece.block:
            root = k, v
        own = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
        )
        found.append(own.transpose(1, 2))
    return torch.cat(found, 1), None


AttentionInterface.register("sdpa", tree_attention)
