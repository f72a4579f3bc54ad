"""How prompt trees become tensor rows. The layout changes only speed, which is checked at load.

*flat* gives every completion a row of its own, ``prompt | completion``. It is always right.
*packed* puts all trees of a batch side by side in one row without padding, ``prompt | c1 | c2 |
prompt' | c1' | ...``. Positions restart with every tree, each completion continues from its
prompt's end, and attention is computed piece by piece (``alignlab.models.attention``), so every
prompt is computed once and nothing is spent on padding.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models.attention import Branches, branches_of

Layout = Literal["auto", "flat", "packed"]
CALL_COST = 256  # overhead of a call of a small model, in columns


@dataclass(frozen=True, slots=True)
class Rows:
    """Model inputs, and where each completion is in them.

    Args:
        input_ids: ``[R, L]`` long.
        position_ids: ``[R, L]`` long, or ``None`` for 0, 1, 2, ...
        branches: Who sees whom in a packed row; ``None`` for causal attention.
        row: ``[M]`` long, the row that holds completion m.
        start: ``[M]`` long, the column of its first token.
        prompt_end: ``[M]`` long, the column of the last token before it.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    branches: Branches | None
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

    Each further group saves padding and costs a call of the model, which counts as ``CALL_COST``
    columns.
    """
    lengths = trees.prompt_lengths[trees.group] + trees.completion_lengths
    order = lengths.argsort(stable=True)

    def cost(parts: int) -> int:
        cut = lengths[order].tensor_split(parts)
        return sum(len(part) * int(part[-1]) + CALL_COST for part in cut if len(part))

    parts = min(range(1, max(2, most + 1)), key=cost)
    return [part for part in order.tensor_split(parts) if len(part)]


def packed_row(trees: PromptTrees, *, keep_last: bool) -> Rows:
    """All trees side by side in one row; the batch keeps it for the next model that reads it.

    ``keep_last`` False leaves out the last token of every completion, after which nothing is
    predicted.
    """
    if keep_last not in trees.rows:
        trees.rows[keep_last] = _packed_row(trees, keep_last)
    rows: Rows = trees.rows[keep_last]
    return rows


def _packed_row(trees: PromptTrees, keep_last: bool) -> Rows:
    """Write each prompt once, its completions behind it, and the next prompt behind those.

    A completion's positions go on from its prompt's, wherever in the row it stands; ``branches``
    names the pieces that may see each other.
    """
    group, prompts = trees.group, trees.prompt_lengths
    lengths = trees.completion_lengths - (0 if keep_last else 1)
    # A prompt's place among all pieces, prompts and completions, is behind those before it.
    place = torch.arange(len(prompts), device=group.device)
    place = place + torch.searchsorted(group, place)
    own = group + 1 + torch.arange(len(group), device=group.device)
    sizes = torch.empty(len(prompts) + len(group), dtype=torch.long, device=group.device)
    sizes[place], sizes[own] = prompts, lengths
    begin = sizes.cumsum(0) - sizes
    first = torch.zeros_like(sizes)  # the position of a piece's first token
    first[own] = prompts[group]
    column = torch.arange(int(sizes.sum()), device=group.device)
    ids = torch.empty_like(column)
    for cells, size, at in (
        (trees.prompt_ids, prompts, begin[place]),
        (trees.completion_ids, lengths, begin[own]),
    ):
        step = torch.arange(cells.shape[1], device=group.device)
        real = step < size[:, None]
        ids[(at[:, None] + step)[real]] = cells[real]
    positions = column + (first - begin).repeat_interleave(sizes)
    return Rows(
        input_ids=ids[None],
        position_ids=positions[None],
        branches=branches_of(group.tolist(), prompts.tolist(), lengths.tolist()),
        row=torch.zeros_like(group),
        start=begin[own],
        prompt_end=begin[place][group] + prompts[group] - 1,
    )
