"""Batches of prompt trees, which every objective trains on.

How a tree becomes rows of a forward is up to the policy, not decided here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from alignlab.data.tree import PromptTree as PromptTree
from alignlab.data.tree import bounds_of as bounds_of

Padding = Literal["longest", "bucket", "max_length"]
BUCKET = 16  # "bucket" padding rounds a length up to a multiple of this


def longest_of(trees: Sequence[PromptTree]) -> Sequence[int]:
    """``PromptTree.longest`` of each; a set in a file has them at hand (``lengths``)."""
    known: Sequence[int] | None = getattr(trees, "lengths", None)
    return [tree.longest for tree in trees] if known is None else known


@dataclass(frozen=True, slots=True)
class StepTotals:
    """How much one optimizer step holds over all its micro-batches and ranks.

    A loss is a sum divided by one of these, so that gradients do not depend on how a step is cut.
    """

    prompts: int
    completions: int
    tokens: int  # completion tokens under the loss mask


def totals_of(trees: Sequence[PromptTree]) -> StepTotals:
    """Count prompts, completions and loss tokens of ``trees``."""
    tokens = 0
    for tree in trees:
        for k, completion in enumerate(tree.completions):
            tokens += sum(tree.loss_masks[k]) if tree.loss_masks else len(completion)
    return StepTotals(len(trees), sum(len(tree.completions) for tree in trees), tokens)


@dataclass(slots=True)
class PromptTrees:
    """A batch of P prompts with M completions in all, padded on the right.

    Lengths, never token ids, say what is padding, so the pad token may equal any other.

    Args:
        prompt_ids: ``[P, L]`` long.
        prompt_lengths: ``[P]`` long, each at least 1.
        completion_ids: ``[M, T]`` long; completions of one prompt stand together, in order.
        completion_lengths: ``[M]`` long, each at least 1.
        loss_mask: ``[M, T]`` bool, True where a completion token counts.
        group: ``[M]`` long, the row of each completion's prompt, non-decreasing.
        index: ``[P]`` long, ``PromptTree.index``.
        ids: P row names.
        labels: ``[M]`` float or ``None``.
        totals: What the whole optimizer step holds, this batch included.
        step: The trees of the whole step, of all ranks, where a loader has made it.
        first: The place among them of this batch's first one.

    Attributes:
        rows: Layouts that models have made of this batch, kept for the next model that reads it.
    """

    prompt_ids: Tensor
    prompt_lengths: Tensor
    completion_ids: Tensor
    completion_lengths: Tensor
    loss_mask: Tensor
    group: Tensor
    index: Tensor
    ids: list[str] = field(default_factory=list)
    labels: Tensor | None = None
    totals: StepTotals = StepTotals(0, 0, 0)
    step: Sequence[PromptTree] = ()
    first: int = 0
    rows: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def token_mask(self) -> Tensor:
        """``[M, T]`` bool, True on every real completion token (trained on or not)."""
        steps = torch.arange(self.completion_ids.shape[1], device=self.completion_ids.device)
        return steps < self.completion_lengths[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PromptTrees":
        """The same batch on ``device`` (Lightning calls this)."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)

    def mismatched_in_step(self) -> "PromptTrees | None":
        """Like ``mismatched``, with partners from the whole step: micro-batches do not matter."""
        if not self.step:
            return self.mismatched()
        others = collate(self.step).mismatched()
        end = self.first + len(self.index)
        return None if others is None else others.between(self.first, end).to(self.index.device)

    def between(self, first: int, end: int) -> "PromptTrees":
        """The prompts from ``first`` to ``end``, which is left out, with their completions."""
        rows = (self.group >= first) & (self.group < end)
        return replace(
            self,
            prompt_ids=self.prompt_ids[first:end],
            prompt_lengths=self.prompt_lengths[first:end],
            completion_ids=self.completion_ids[rows],
            completion_lengths=self.completion_lengths[rows],
            loss_mask=self.loss_mask[rows],
            group=self.group[rows] - first,
            index=self.index[first:end],
            ids=self.ids[first:end],
            labels=None if self.labels is None else self.labels[rows],
        )

    def mismatched(self) -> "PromptTrees | None":
        """Every prompt with the completions of the next one in the batch that is another text.

        ``None`` where all prompts are the same. ``index`` stays the prompt's own, so log-probs that
        are looked up by it do not belong to these completions.
        """
        ids, lengths, place = self.prompt_ids, self.prompt_lengths, torch.arange(len(self.index))
        place = place.to(ids.device)
        same = (ids[:, None] == ids).all(-1) & (lengths[:, None] == lengths)
        if bool(same.all()):
            return None
        following = (place[:, None] + place[1:]) % len(place)
        first = (~same).gather(1, following).long().argmax(1, keepdim=True)
        other = following.gather(1, first).squeeze(1)
        count = torch.bincount(self.group, minlength=len(place))
        group = place.repeat_interleave(count[other])
        before = count[other].cumsum(0) - count[other]  # rows of the new batch before prompt p's
        within = torch.arange(len(group), device=ids.device) - before[group]
        rows = (count.cumsum(0) - count)[other][group] + within
        return replace(
            self,
            completion_ids=self.completion_ids[rows],
            completion_lengths=self.completion_lengths[rows],
            loss_mask=self.loss_mask[rows],
            group=group,
            labels=None if self.labels is None else self.labels[rows],
        )

    def shortened(self, most: Tensor) -> "PromptTrees":
        """Every completion cut to its number in ``most`` ``[M]``, each at least 1."""
        lengths = torch.minimum(self.completion_lengths, most)
        steps = torch.arange(self.completion_ids.shape[1], device=lengths.device)
        mask = self.loss_mask & (steps < lengths[:, None])
        return replace(self, completion_lengths=lengths, loss_mask=mask)

    def prompts_as_completions(self) -> tuple["PromptTrees", Tensor]:
        """Prompts of two or more tokens as completions of their first one, and their rows ``[Q]``.

        So a policy scores a prompt's own tokens; of a single token there is nothing to score.
        """
        rows = (self.prompt_lengths > 1).nonzero().squeeze(1)
        lengths, steps = self.prompt_lengths[rows] - 1, torch.arange(self.prompt_ids.shape[1] - 1)
        trees = replace(
            self,
            prompt_ids=self.prompt_ids[rows, :1],
            prompt_lengths=torch.ones_like(lengths),
            completion_ids=self.prompt_ids[rows, 1:],
            completion_lengths=lengths,
            loss_mask=steps.to(lengths.device) < lengths[:, None],
            group=torch.arange(len(rows), device=lengths.device),
            index=self.index[rows],
            ids=[self.ids[row] for row in rows.tolist()],
            labels=None,
        )
        return trees, rows


def collate(
    trees: Sequence[PromptTree],
    *,
    padding: Padding = "longest",
    max_length: int | None = None,
    totals: StepTotals | None = None,
) -> PromptTrees:
    """Pad ``trees`` to one batch.

    ``longest`` pads to the longest prompt and completion here, ``bucket`` rounds both up to a
    multiple of 16, ``max_length`` pads each to ``max_length`` (few shapes, for compilers).
    ``totals`` defaults to the batch's own.
    """
    completions = [c for tree in trees for c in tree.completions]
    masks = [
        tree.loss_masks[k] if tree.loss_masks else (True,) * len(c)
        for tree in trees
        for k, c in enumerate(tree.completions)
    ]
    prompt_ids, prompt_lengths = _pad([tree.prompt for tree in trees], padding, max_length)
    completion_ids, completion_lengths = _pad(completions, padding, max_length)
    labels = [x for tree in trees for x in tree.labels or ()]
    if labels and len(labels) != len(completions):
        raise ValueError("a batch holds trees with labels and trees without")
    return PromptTrees(
        prompt_ids=prompt_ids,
        prompt_lengths=prompt_lengths,
        completion_ids=completion_ids,
        completion_lengths=completion_lengths,
        loss_mask=_pad(masks, padding, max_length)[0].bool(),
        group=torch.tensor(
            [p for p, tree in enumerate(trees) for _ in tree.completions], dtype=torch.long
        ),
        index=torch.tensor([tree.index for tree in trees]),
        ids=[tree.id for tree in trees],
        labels=torch.tensor(labels, dtype=torch.float32) if labels else None,
        totals=totals or totals_of(trees),
    )


def _pad(
    rows: Sequence[Sequence[int]], padding: Padding, max_length: int | None
) -> tuple[Tensor, Tensor]:
    """The rows as one tensor, with zeros behind them, and their lengths, both long."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    width = max(map(len, rows), default=0)
    if padding == "bucket":
        width = -(-width // BUCKET) * BUCKET
    if padding == "max_length":
        if max_length is None or width > max_length:
            raise ValueError(f"padding='max_length' needs max_length >= {width}, got {max_length}")
        width = max_length
    out = torch.zeros(len(rows), width, dtype=torch.long)
    # One tensor of all ids and one masked write: several times faster than row by row.
    out[torch.arange(width) < lengths[:, None]] = torch.tensor(
        list(chain.from_iterable(rows)), dtype=torch.long
    )
    return out, lengths


def in_length_order(
    trees: Sequence[PromptTree], batch_size: int
) -> Iterator[tuple[list[int], PromptTrees]]:
    """Batches of trees of similar length, and their places in ``trees``: little of them is padding.

    Args:
        trees: What is read, in any order.
        batch_size: Completions per batch; a tree is never cut.
    """
    lengths, counts = longest_of(trees), [len(t.completions) for t in trees]
    for places in length_batches(lengths, counts, batch_size):
        yield places, collate([trees[i] for i in places])


def length_batches(
    lengths: Sequence[int], counts: Sequence[int], batch_size: int
) -> Iterator[list[int]]:
    """Places of items in order of their lengths, up to ``batch_size`` of their ``counts`` at once.

    An item that counts for more than ``batch_size`` is a batch of its own.
    """
    places: list[int] = []
    size = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if places and size + counts[i] > batch_size:
            yield places
            places, size = [], 0
        places.append(i)
        size += counts[i]
    if places:
        yield places
