"""Prompt trees: a prompt, its completions, and which of their tokens count.

A tree with one completion is a demonstration, with two a preference pair, with more a ranking or a
group of rollouts. Every objective trains on batches of trees (``alignlab.data.trees``). Nothing
here needs torch, so rows can be tokenised without it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from alignlab.data.rows import Text


@dataclass(frozen=True, slots=True)
class PromptTree:
    """One prompt and its completions as token ids.

    Args:
        index: The tree's number in its data set: its name for sampling noise and cached log-probs.
        id: The source row's name, for messages.
        prompt: Token ids, at least one (a beginning-of-text token when the prompt is empty).
        completions: Token ids of each completion, at least one token each.
        loss_masks: For each completion, which of its tokens count; all of them when ``None``.
        labels: One number per completion (class, rating or rank), or none.
        row: Position of its row in the source. It identifies the row; ids are given by users and
            may repeat.
        source: The row's own prompt, for rewards; ``None`` where the tree holds another text, and
            in the trees of data modules that have completions.
    """

    index: int
    id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    loss_masks: tuple[tuple[bool, ...], ...] | None = None
    labels: tuple[float, ...] | None = None
    row: int = field(default=-1, compare=False)
    source: Text | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.prompt or not all(self.completions):
            raise ValueError(f"tree {self.id!r}: prompt and completions need a token each")
        if self.loss_masks is not None:
            lengths = [len(completion) for completion in self.completions]
            if [len(mask) for mask in self.loss_masks] != lengths:
                raise ValueError(f"tree {self.id!r}: loss masks are not as long as completions")
        if self.labels is not None and len(self.labels) != len(self.completions):
            raise ValueError(f"tree {self.id!r}: needs one label for each completion")

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt + completion branch."""
        return len(self.prompt) + max((len(c) for c in self.completions), default=0)


class TreeBounds(NamedTuple):
    """What no tree of a set exceeds."""

    longest: int  # tokens of a prompt + completion
    largest_id: int


def bounds_of(trees: Iterable[PromptTree]) -> TreeBounds:
    """The bounds of trees; a set in a file has them at hand (``bounds``)."""
    known: TreeBounds | None = getattr(trees, "bounds", None)
    if known is not None:
        return known
    longest = largest = 0
    for tree in trees:
        longest = max(longest, tree.longest)
        largest = max(largest, *tree.prompt, *chain.from_iterable(tree.completions))
    return TreeBounds(longest, largest)
