"""How prompt trees become tensor rows: a private, probed optimisation of the models' one forward.

*flat* gives every completion a row of its own, ``prompt | completion``. It is always right.
*tree* puts several completions of a prompt behind one copy of it, ``prompt | c1 | c2 | ...``: each
continues from the prompt's end by position, and a mask lets it see the prompt and itself. The
prompt is then computed once, at the price of a dense attention mask.
*packed* puts whole trees side by side in one row, ``prompt | c1 | c2 | prompt' | c1' | ...``:
positions restart with every tree and none sees another. No column is left to padding while
something still fits into it, at the same price.

Padding stands on the right in both, so no real token ever sees it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignlab.data.trees import PromptTrees

Layout = Literal["auto", "flat", "tree", "packed"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Model inputs, and where each completion is in them.

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
    """Completions cut into up to ``most`` groups of similar length, to be padded separately.

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
    bundles = _bundles(trees, per_row=per_row)
    return _side_by_side(trees, [[bundle] for bundle in bundles], dtype, keep_last=True)


def packed_rows(trees: PromptTrees, dtype: torch.dtype, *, keep_last: bool) -> Rows:
    """Trees side by side in rows no longer than the longest prompt + completion here.

    A prompt's completions share one copy of it as far as a row reaches. Bundles of a prompt and
    completions go, the longest first, each into the first row that has room for it (first-fit
    decreasing), so a row is never longer than the longest one of flat rows. ``keep_last`` False
    leaves out the last token of every completion, after which nothing is predicted.
    """
    prompts, lengths = trees.prompt_lengths.tolist(), _columns(trees, keep_last)
    group = trees.group.tolist()
    room = max(prompts[p] + n for p, n in zip(group, lengths, strict=True))
    bundles = _bundles(trees, columns=room, keep_last=keep_last)
    size = [prompts[group[b[0]]] + sum(lengths[m] for m in b) for b in bundles]
    rows: list[list[list[int]]] = []
    fill: list[int] = []
    for i in sorted(range(len(bundles)), key=lambda i: -size[i]):
        r = next((r for r, used in enumerate(fill) if used + size[i] <= room), len(rows))
        if r == len(rows):
            rows.append([])
            fill.append(0)
        rows[r].append(bundles[i])
        fill[r] += size[i]
    return _side_by_side(trees, rows, dtype, keep_last=keep_last)


def _columns(trees: PromptTrees, keep_last: bool) -> list[int]:
    """How many columns each completion takes."""
    lengths: list[int] = (trees.completion_lengths - (0 if keep_last else 1)).tolist()
    return lengths


def _bundles(
    trees: PromptTrees,
    *,
    per_row: int | None = None,
    columns: int | None = None,
    keep_last: bool = True,
) -> list[list[int]]:
    """Completions that share a copy of their prompt, as many as the bounds allow (at least one)."""
    prompts, lengths = trees.prompt_lengths.tolist(), _columns(trees, keep_last)
    group = trees.group.tolist()
    bundles: list[list[int]] = []
    used = 0
    for m, p in enumerate(group):
        full = bool(bundles) and (
            (per_row is not None and len(bundles[-1]) == per_row)
            or (columns is not None and used + lengths[m] > columns)
        )
        if m == 0 or group[m - 1] != p or full:
            bundles.append([])
            used = prompts[p]
        bundles[-1].append(m)
        used += lengths[m]
    return bundles


def _side_by_side(
    trees: PromptTrees, rows: list[list[list[int]]], dtype: torch.dtype, *, keep_last: bool
) -> Rows:
    """Rows of bundles: ``rows[r][d]`` are the completions behind copy d of a prompt in row r."""
    group, prompts = trees.group.tolist(), trees.prompt_lengths.tolist()
    prompt_ids, completion_ids = trees.prompt_ids.tolist(), trees.completion_ids.tolist()
    lengths = _columns(trees, keep_last)
    width = max(sum(prompts[group[b[0]]] + sum(lengths[m] for m in b) for b in r) for r in rows)
    # Lists, and one tensor of all: a tensor operation a tree would cost more than small models do.
    ids: list[list[int]] = [[] for _ in rows]
    position: list[list[int]] = [[] for _ in rows]
    tree: list[list[int]] = [[] for _ in rows]  # -1 padding
    branch: list[list[int]] = [[] for _ in rows]  # -1 padding, 0 a prompt, m + 1 completion m
    place = [(0, 0, 0)] * len(group)  # row, start and prompt's end of each completion
    for r, bundles in enumerate(rows):
        for d, bundle in enumerate(bundles):
            p = group[bundle[0]]
            n = prompts[p]
            ids[r] += prompt_ids[p][:n]
            position[r] += range(n)
            branch[r] += [0] * n
            end = len(ids[r]) - 1
            for m in bundle:
                place[m] = r, len(ids[r]), end
                ids[r] += completion_ids[m][: lengths[m]]
                position[r] += range(n, n + lengths[m])
                branch[r] += [m + 1] * lengths[m]
            tree[r] += [d] * (len(ids[r]) - len(tree[r]))
        padding = width - len(ids[r])
        for cells, filler in ((ids, 0), (position, 0), (tree, -1), (branch, -1)):
            cells[r] += [filler] * padding
    device = trees.prompt_ids.device
    cell = torch.tensor([ids, position, tree, branch], device=device)
    row, start, prompt_end = torch.tensor(place, device=device).unbind(1)
    mask = _branch_mask(cell[2], cell[3], dtype)
    return Rows(cell[0], cell[1], mask, row, start, prompt_end)


def _branch_mask(tree: Tensor, branch: Tensor, dtype: torch.dtype) -> Tensor:
    """``[R, 1, L, L]``: 0 where a column may be seen, the most negative number where not.

    A column sees, of its own tree, the prompt and its own branch, as far as they stand before it.

    Additive floats are right under every attention implementation; a boolean mask is silently
    wrong under eager attention. A padding column sees itself, so that no row is all masked.
    """
    width = tree.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=tree.device).tril()
    same_tree = tree[:, :, None] == tree[:, None, :]
    same_branch = branch[:, :, None] == branch[:, None, :]
    seen = causal & same_tree & (same_branch | (branch == 0)[:, None, :])
    mask = torch.zeros(seen.shape, dtype=dtype, device=tree.device)
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
