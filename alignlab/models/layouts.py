"""How prompt trees become tensor rows: a private, probed optimisation of the models' one forward.

*flat* gives every completion a row of its own, ``prompt | completion``. It is always right.
*tree* puts several completions of a prompt behind one copy of it, ``prompt | c1 | c2 | ...``: each
continues from the prompt's end by position, and a mask lets it see the prompt and itself. The
prompt is then computed once, at the price of a dense attention mask.

Padding stands on the right in both, so no real token ever sees it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignlab.data.trees import PromptTrees

Layout = Literal["auto", "flat", "tree"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Model inputs, and where each completion stands in them.

    Args:
        input_ids: ``[R, L]`` long.
        position_ids: ``[R, L]`` long, or ``None`` for 0, 1, 2, ...
        attention_mask: ``[R, 1, L, L]`` added to the attention scores, or ``None`` for causal.
        row: ``[M]`` long, the row that holds completion m.
        start: ``[M]`` long, the column of its first token.
        prompt_end: ``[M]`` long, the column of the last token before it.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    attention_mask: Tensor | None
    row: Tensor
    start: Tensor
    prompt_end: Tensor

    def columns(self, steps: int, *, after: bool) -> Tensor:
        """``[M, steps]`` columns of the state before (or after) each completion token is read."""
        step = torch.arange(steps, device=self.start.device)
        if after:
            return self.start[:, None] + step
        before = self.start[:, None] + step - 1
        before[:, :1] = self.prompt_end[:, None]
        return before


def flat_rows(trees: PromptTrees, *, keep_last: bool, which: Tensor | None = None) -> Rows:
    """A row per completion, or per completion of ``which`` ``[m]``.

    ``keep_last`` False leaves out the column after which nothing is predicted.
    """
    if which is None:
        which = torch.arange(len(trees.group), device=trees.group.device)
    group, lengths = trees.group[which], trees.completion_lengths[which]
    prompt_lengths = trees.prompt_lengths[group]
    longest = int((prompt_lengths + lengths).max()) - (0 if keep_last else 1)
    column = torch.arange(longest, device=group.device).expand(len(group), -1)
    offset = column - prompt_lengths[:, None]
    from_prompt = trees.prompt_ids[group].gather(1, column.clamp(max=trees.prompt_ids.shape[1] - 1))
    from_completion = trees.completion_ids[which].gather(
        1, offset.clamp(min=0, max=trees.completion_ids.shape[1] - 1)
    )
    ids = torch.where(offset < 0, from_prompt, from_completion)
    ids = ids.masked_fill(offset >= lengths[:, None], 0)
    row = torch.arange(len(prompt_lengths), device=ids.device)
    return Rows(ids, None, None, row, prompt_lengths, prompt_lengths - 1)


def length_groups(trees: PromptTrees, most: int) -> list[Tensor]:
    """Completions cut into up to ``most`` groups of like length, to be padded apart.

    Each further group saves padding and costs a call of the model; a call is reckoned as
    ``CALL_COST`` columns.
    """
    lengths = trees.prompt_lengths[trees.group] + trees.completion_lengths
    order = lengths.argsort(stable=True)

    def cost(parts: int) -> int:
        cut = lengths[order].tensor_split(parts)
        return sum(len(part) * int(part[-1]) + CALL_COST for part in cut if len(part))

    parts = min(range(1, max(2, most + 1)), key=cost)
    return [part for part in order.tensor_split(parts) if len(part)]


def tree_rows(trees: PromptTrees, per_row: int, dtype: torch.dtype) -> Rows:
    """Up to ``per_row`` completions of a prompt behind one copy of it, in ``dtype`` masks."""
    device = trees.prompt_ids.device
    group = trees.group.tolist()
    prompt_lengths, lengths = trees.prompt_lengths.tolist(), trees.completion_lengths.tolist()
    row_prompt: list[int] = []
    row: list[int] = []
    start: list[int] = []
    fill: list[int] = []  # columns used in each row
    held = 0  # completions in the row being filled
    for m, p in enumerate(group):
        if m == 0 or group[m - 1] != p or held == per_row:
            row_prompt.append(p)
            fill.append(prompt_lengths[p])
            held = 0
        held += 1
        row.append(len(fill) - 1)
        start.append(fill[-1])
        fill[-1] += lengths[m]
    ids = torch.zeros(len(fill), max(fill), dtype=torch.long, device=device)
    position = torch.zeros_like(ids)
    segment = torch.full_like(ids, -1)  # -1 padding, 0 the prompt, m + 1 completion m
    for r, p in enumerate(row_prompt):
        n = prompt_lengths[p]
        ids[r, :n] = trees.prompt_ids[p, :n]
        position[r, :n] = torch.arange(n, device=device)
        segment[r, :n] = 0
    for m, (r, s, n) in enumerate(zip(row, start, lengths, strict=True)):
        ids[r, s : s + n] = trees.completion_ids[m, :n]
        position[r, s : s + n] = prompt_lengths[group[m]] + torch.arange(n, device=device)
        segment[r, s : s + n] = m + 1
    return Rows(
        ids,
        position,
        _branch_mask(segment, dtype),
        torch.tensor(row, device=device),
        torch.tensor(start, device=device),
        trees.prompt_lengths[trees.group] - 1,
    )


def _branch_mask(segment: Tensor, dtype: torch.dtype) -> Tensor:
    """``[R, 1, L, L]``: 0 where a column may be seen, the most negative number where not.

    Additive floats are right under every attention implementation; a boolean mask is silently
    wrong under eager attention. A padding column sees itself, so that no row is all masked.
    """
    width = segment.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segment.device).tril()
    same = segment[:, :, None] == segment[:, None, :]
    prompt = (segment == 0)[:, None, :] & (segment >= 0)[:, :, None]
    seen = causal & (same | prompt)
    mask = torch.zeros(seen.shape, dtype=dtype, device=segment.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def plan(
    trees: PromptTrees,
    *,
    width: int,
    dense_cost: float,
    max_tokens: int,
    groups: list[Tensor] | None = None,
) -> int:
    """How many completions of a prompt should share a row: 1 is flat.

    The cost of a row of L columns is that of its linear layers, ``L``, plus that of attention,
    ``L^2 * c / width``, where c is larger for a dense mask than for the causal kernel. Both are
    relative to one column of the linear layers of a model of hidden size ``width``.

    Args:
        trees: The batch.
        width: Hidden size of the model.
        dense_cost: Cost of a cell of dense attention, in units of ``1 / width`` columns.
        max_tokens: Rows longer than this are not built (memory of the dense mask).
        groups: The length groups that flat rows would be computed in.
    """
    sizes = torch.bincount(trees.group).tolist()
    prompts, lengths = trees.prompt_lengths.tolist(), trees.completion_lengths.tolist()

    def cost(per_row: int) -> float:
        if per_row == 1 and groups:
            full = trees.prompt_lengths[trees.group] + trees.completion_lengths
            return sum(
                CALL_COST
                + len(g) * int(full[g].max()) * (1 + CAUSAL_COST * int(full[g].max()) / width)
                for g in groups
            )
        columns, first = [], 0
        for p, k in enumerate(sizes):
            for s in range(first, first + k, per_row):
                columns.append(prompts[p] + sum(lengths[s : min(s + per_row, first + k)]))
            first += k
        longest = max(columns)
        if per_row > 1 and longest > max_tokens:
            return float("inf")
        attention = (dense_cost if per_row > 1 else CAUSAL_COST) * longest / width
        return len(columns) * longest * (1 + attention)

    return min(range(1, max(sizes) + 1), key=cost)


CALL_COST = 256  # columns that a call of a small model costs besides its own
# Set by hand so that published flat/tree timings fall on the right side; not fitted yet
# (benchmarks/layouts.py prints what to fit them to).
CAUSAL_COST = 0.15  # an attention cell of the causal kernel
DENSE_COST = 0.6  # an attention cell under a dense mask
