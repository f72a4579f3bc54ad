"""A loader of prompt trees whose batches are a pure function of (seed, epoch, position).

It is sized and stateful: Lightning saves its state in the checkpoint and restores it, so a run that
is stopped between two batches continues with exactly the remaining ones.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any, TypeVar

import torch.distributed

from alignlab.clock import CLOCK
from alignlab.data.trees import (
    Padding,
    PromptTree,
    PromptTrees,
    collate,
    longest_of,
    totals_of,
)
from alignlab.errors import ConfigError
from alignlab.functional.noise import permutation

T = TypeVar("T")


@dataclass(eq=False)
class TreeLoader:
    """Micro-batches of prompt trees, every tree once an epoch.

    An optimizer step takes ``batch_size`` trees over all ranks, in micro-batches of
    ``micro_batch_size`` a rank; each carries the totals of its whole step, which every rank works
    out from the same order. The last step of an epoch holds the remaining trees, in as few
    micro-batches of even size as possible; fewer trees than ranks join the step before. So all
    ranks get the same number of micro-batches, no tree is dropped or repeated, and with several
    ranks a micro-batch of the last step may hold one tree too many.

    Inside a step trees are sorted by length, so that its micro-batches hold little padding. A new
    iterator in the middle of an epoch starts the next one, except straight after
    ``load_state_dict``. With ``shuffle=False`` the order is the trees' own.

    ``length_window`` steps are sorted by length together, and shuffled again. More than 1 saves
    padding, but a step's length then nearly determines whether its texts end, which biases the
    gradient (on the toy world, a language model ended 0.8 nats from its data with 16, 0.1 with 1).

    Raises:
        ConfigError: The batch size does not divide by micro-batches and ranks, or there are fewer
            trees than ranks.
    """

    trees: Sequence[PromptTree]
    _: KW_ONLY
    batch_size: int  # trees per optimizer step, over all ranks
    micro_batch_size: int | None = None  # trees per forward on a rank; its share of a step if None
    seed: int = 0
    shuffle: bool = True  # off for validation
    padding: Padding = "longest"  # of batches: see collate
    max_length: int | None = None  # width with padding="max_length"
    # Where the trainer leaves an epoch (limit_train_batches): a number of a rank's micro-batches,
    # or their share. What it cuts off a step is not in that step's totals.
    limit: float = 1.0
    length_window: int = 1
    prefetch: int = 0  # micro-batches that a thread makes ahead of the one in use
    rank: int | None = None  # this process, and
    world_size: int | None = None  # how many there are; torch.distributed knows if None

    def __post_init__(self) -> None:
        self._rank, self._world = rank_and_world_size(self.rank, self.world_size)
        world = self._world
        self.micro_batches = micro_batches_of(self.batch_size, self.micro_batch_size, world)
        self.micro_batch_size = self.batch_size // (self.micro_batches * world)
        if len(self.trees) < world:
            raise ConfigError(
                f"{len(self.trees)} rows cannot be shared by {world} processes without one of "
                "them waiting forever. Use fewer devices or more rows."
            )
        self._steps = _step_sizes(len(self.trees), self.batch_size, world)
        whole = sum(map(self._pieces, self._steps))
        self._end = used_of(whole, self.limit)  # the micro-batch after which an epoch ends
        self._length = whole if isinstance(self.limit, float) else self._end
        self._epoch, self._position = 0, 0
        self._as_loaded = False

    def __len__(self) -> int:
        """Micro-batches of one rank in an epoch. Lightning takes a share of it by itself."""
        return self._length

    def __iter__(self) -> Iterator[PromptTrees]:
        if self._position and not self._as_loaded:
            self._epoch, self._position = self._epoch + 1, 0
        self._as_loaded = False
        made = self._run(self._epoch, self._position)
        return self._given(timed(made_ahead(made, self.prefetch) if self.prefetch else made))

    def _given(self, made: Iterator["Made"]) -> Iterator[PromptTrees]:
        for batch, self._epoch, self._position in made:
            # Set before the batch is out: a checkpoint taken after it starts with the next.
            yield batch

    @property
    def position(self) -> int:
        """The epoch's next micro-batch."""
        return self._position

    def state_dict(self) -> dict[str, int]:
        """Epoch and position of the next batch, and how an epoch and its steps are cut."""
        steps, rows = self._taken()
        return {
            "epoch": self._epoch,
            "position": self._position,
            "length": self._end,
            "micro_batches": self.micro_batches,
            "steps": steps,
            "rows": rows,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from ``state``, even if steps are now cut into other micro-batches.

        Raises:
            ConfigError: Its epoch had other optimizer steps, or it was saved inside of one.
        """
        before = state.get("micro_batches", self.micro_batches)
        same = ("length",) if before == self.micro_batches else ("steps", "rows")
        own = self.state_dict()
        if any(state[key] != own[key] for key in same):
            raise ConfigError(
                f"the checkpoint's epoch has {state['length']} batches, this one {self._end}. "
                "Resume with the same data, batch_size, micro_batch_size and devices."
            )
        self._position = recut_position(state["position"], before, self.micro_batches)
        self._epoch = state["epoch"]
        self._as_loaded = True

    def _taken(self) -> tuple[int, int]:
        """Optimizer steps and rows of an epoch, within the trainer's limit on batches."""
        steps = rows = used = 0
        for step in self._steps:
            seen = min(self._pieces(step), self._end - used)
            rows += seen * step // self._pieces(step)
            steps, used = steps + (seen > 0), used + seen
        return steps, rows

    def step_trees(self, epoch: int) -> list[list[int]]:
        """Positions in ``trees`` of every optimizer step of an epoch, all ranks together."""
        n, size = len(self.trees), self.batch_size
        if not self.shuffle:
            return _cut(list(range(n)), self._steps)
        order = permutation(self.seed, epoch, n).tolist()
        whole = [k for k in self._steps if k == size]
        # The odd step stays last, so that accumulation is even until the epoch's end; its rows
        # are a random draw and not the longest ones.
        body, rest = order[: size * len(whole)], order[size * len(whole) :]
        length = longest_of(self.trees)
        # A window over the whole set would put the same trees together in every epoch.
        window = size * min(self.length_window, max(1, len(whole) // 4))
        windows = _cut(body, _step_sizes(len(body), window, 1))
        ordered = [k for window in windows for k in sorted(window, key=lambda k: length[k])]
        steps = _cut(ordered, whole)
        # Another stream of the same hash: the epoch's own shuffle must not be reused.
        shuffled = [steps[k] for k in permutation(~self.seed, epoch, len(steps)).tolist()]
        return [*shuffled, sorted(rest, key=lambda k: length[k])] if rest else shuffled

    def _run(self, epoch: int, start: int) -> Iterator["Made"]:
        """Make this rank's micro-batches of an epoch from position ``start`` on.

        Each comes with the epoch and position to continue from after it. Its ``totals`` count all
        micro-batches of its optimizer step on all ranks, as far as the trainer's limit lets them
        come, because the step's loss is divided by that count.
        """
        steps = self.step_trees(epoch)
        places = [(step, piece) for step in steps for piece in range(self._pieces(len(step)))]
        trees, made = list[PromptTree](), list[int]()
        for position, (step, piece) in enumerate(places[start : self._end], start + 1):
            if step is not made:
                trees, made = [self.trees[k] for k in step], step
            pieces = self._pieces(len(step))
            seen = min(pieces, self._end - (position - 1 - piece))
            taken = trees[: seen * len(trees) // pieces]
            # Ranks take neighbours, so that at any time they work on batches of similar length.
            total, part = pieces * self._world, piece * self._world + self._rank
            first, end = part * len(trees) // total, (part + 1) * len(trees) // total
            done = position == self._end
            following = (epoch + 1, 0) if done else (epoch, position)
            sizes: dict[str, Any] = {"padding": self.padding, "max_length": self.max_length}
            batch = collate(trees[first:end], **sizes, totals=totals_of(taken))
            batch.step, batch.first = taken, first
            yield batch, *following

    def _pieces(self, trees: int) -> int:
        """Micro-batches of one rank in a step: enough for its trees, none of them empty."""
        needed = -(-trees // (self.batch_size // self.micro_batches))
        return min(needed, self.micro_batches, trees // self._world)


Made = tuple[PromptTrees, int, int]  # a batch, and the epoch and position of the next one


def made_ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """Yield the same items, of which a thread makes up to ``count`` while earlier ones are used."""
    with ThreadPoolExecutor(1, "batches") as worker:
        waiting = deque(worker.submit(next, items, None) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(worker.submit(next, items, None))
                yield item
        finally:
            worker.shutdown(cancel_futures=True)


def timed(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items; the clock counts the time until each is there."""
    while True:
        with CLOCK.part("data"):
            item = next(items, None)
        if item is None:
            return
        yield item


def micro_batches_of(batch_size: int, micro_batch_size: int | None, world_size: int) -> int:
    """How many micro-batches a rank accumulates in one optimizer step.

    Raises:
        ConfigError: The numbers do not divide.
    """
    micro = -(-batch_size // world_size) if micro_batch_size is None else micro_batch_size
    if batch_size < 1 or micro < 1 or batch_size % (micro * world_size):
        raise ConfigError(
            f"batch_size {batch_size} is not a multiple of micro_batch_size {micro} x "
            f"{world_size} process(es). Change data.init_args.batch_size or micro_batch_size."
        )
    return batch_size // (micro * world_size)


def recut_position(position: int, before: int, now: int) -> int:
    """Convert a position counted in micro-batches from ``before`` per step to ``now`` per step.

    Raises:
        ConfigError: It is inside a step, whose accumulated gradient no checkpoint holds.
    """
    step, rest = divmod(position, before)
    if rest and before != now:
        raise ConfigError(
            f"the checkpoint was saved inside an optimizer step of {before} micro-batches, and a "
            f"step has {now} here. Resume with the same devices and micro_batch_size."
        )
    return step * now + rest


def used_of(batches: int, limit: float) -> int:
    """How many batches of an epoch Lightning uses with this ``limit_train_batches``."""
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _step_sizes(rows: int, batch_size: int, world_size: int) -> list[int]:
    whole, rest = divmod(rows, batch_size)
    sizes = [batch_size] * whole
    if rest >= world_size or (rest and not whole):
        return [*sizes, rest]
    return [*sizes[:-1], batch_size + rest] if rest else sizes


def _cut(items: list[int], sizes: Sequence[int]) -> list[list[int]]:
    left = iter(items)
    return [list(islice(left, size)) for size in sizes]


def rank_and_world_size(rank: int | None = None, size: int | None = None) -> tuple[int, int]:
    """This process's rank and the number of processes; given values win."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if size is None:
        size = torch.distributed.get_world_size() if distributed else 1
    return rank, size
