import random
import threading
from itertools import islice
from typing import Any

import pytest
import torch

from alignlab.data.loader import TreeLoader, made_ahead, recut_position
from alignlab.data.trees import PromptTree, PromptTrees, StepTotals
from alignlab.errors import ConfigError


def some_trees(n: int, seed: int = 0, completions: int = 2) -> list[PromptTree]:
    draw = random.Random(seed)
    return [
        PromptTree(
            k,
            str(k),
            (1,) * draw.randint(1, 30),
            tuple((2,) * draw.randint(1, 9) for _ in range(completions)),
        )
        for k in range(n)
    ]


def ids(batches: list[PromptTrees]) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches]


def flat(batches: list[PromptTrees]) -> list[int]:
    return [k for batch in batches for k in batch.index.tolist()]


@pytest.mark.parametrize("n", [1, 3, 8, 9, 16, 37])
@pytest.mark.parametrize(("batch_size", "micro"), [(1, 1), (8, 2), (8, None), (6, 3)])
def test_every_tree_once_an_epoch_in_steps_of_the_batch_size(
    n: int, batch_size: int, micro: int | None
) -> None:
    loader = TreeLoader(some_trees(n), batch_size=batch_size, micro_batch_size=micro, seed=3)
    epochs = [list(loader), list(loader)]
    for batches in epochs:
        assert sorted(flat(batches)) == list(range(n))
        assert len(batches) == len(loader)
        assert all(1 <= len(batch.index) <= (micro or batch_size) for batch in batches)
    whole = n // batch_size * loader.micro_batches
    assert all(len(b.index) == (micro or batch_size) for b in epochs[0][:whole])
    assert len(loader) - whole <= loader.micro_batches
    if n > 9:
        assert flat(epochs[0]) != flat(epochs[1])


def test_last_step_is_cut_evenly() -> None:
    """13 trees: 8, then 5 in two micro-batches of at most 4."""
    loader = TreeLoader(some_trees(13), batch_size=8, micro_batch_size=4)
    assert [len(b.index) for b in loader] == [4, 4, 2, 3]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    trees = some_trees(40)
    first = TreeLoader(trees, batch_size=4, seed=1)
    epochs = [ids(list(first)) for _ in range(3)]
    again = TreeLoader(trees, batch_size=4, seed=1)
    again.load_state_dict({"epoch": 2, "position": 0, "length": 10})
    torch.manual_seed(99)
    assert ids(list(again)) == epochs[2]
    assert ids(list(TreeLoader(trees, batch_size=4, seed=2))) != epochs[0]


def test_order_is_pinned() -> None:
    """A changed shuffle would silently break the resume of runs that others started."""
    loader = TreeLoader(some_trees(8), batch_size=2, seed=7)
    assert flat(list(loader)) == [3, 6, 5, 2, 1, 7, 4, 0]


@pytest.mark.parametrize("limit", [1.0, 5, 0.4], ids=str)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_totals_are_the_whole_steps_on_every_micro_batch_and_rank(world: int, limit: float) -> None:
    """Where the trainer leaves an epoch inside a step, that step is what there was of it."""
    trees = some_trees(50)
    set_up: dict[str, Any] = {"batch_size": 12, "micro_batch_size": 2, "seed": 5, "limit": limit}
    loaders = [TreeLoader(trees, **set_up, rank=r, world_size=world) for r in range(world)]
    ranks = [list(loader) for loader in loaders]
    per_step = loaders[0].micro_batches
    for start in range(0, len(ranks[0]), per_step):
        step = [batch for rank in ranks for batch in rank[start : start + per_step]]
        counted = StepTotals(
            sum(len(batch.index) for batch in step),
            sum(len(batch.completion_lengths) for batch in step),
            sum(int(batch.loss_mask.sum()) for batch in step),
        )
        assert {batch.totals for batch in step} == {counted}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("micro", [1, 2])
def test_ranks_share_every_epoch_without_waiting(world: int, micro: int, shuffle: bool) -> None:
    for n in range(world, 40):
        check_ranks(n, world, micro, shuffle)


def check_ranks(n: int, world: int, micro: int, shuffle: bool) -> None:
    loaders = [
        TreeLoader(
            some_trees(n),
            batch_size=2 * micro * world,
            micro_batch_size=micro,
            shuffle=shuffle,
            rank=rank,
            world_size=world,
        )
        for rank in range(world)
    ]
    ranks = [list(loader) for loader in loaders]
    assert len({len(batches) for batches in ranks}) == 1
    assert len(ranks[0]) == len(loaders[0])
    assert sorted(k for batches in ranks for k in flat(batches)) == list(range(n))
    sizes = [len(batch.index) for batches in ranks for batch in batches]
    assert min(sizes) >= 1
    assert max(sizes) <= micro + 1
    whole = (n // (2 * micro * world) - 1) * 2
    assert all(len(b.index) == micro for batches in ranks for b in batches[: max(whole, 0)])


def test_a_single_process_never_exceeds_the_micro_batch() -> None:
    for n in range(1, 40):
        loader = TreeLoader(some_trees(n), batch_size=6, micro_batch_size=3)
        assert max(len(batch.index) for batch in loader) <= 3


def test_a_small_set_is_not_cut_the_same_way_in_every_epoch() -> None:
    loader = TreeLoader(some_trees(64), batch_size=8)
    first, second = ({frozenset(step) for step in ids(list(loader))} for _ in range(2))
    assert len(first & second) <= 1


def test_union_of_ranks_is_the_single_process_step() -> None:
    """More processes must not change which trees share an optimizer step."""
    trees = some_trees(24)
    alone = TreeLoader(trees, batch_size=6, seed=4)
    pair = [TreeLoader(trees, batch_size=6, seed=4, rank=r, world_size=2) for r in (0, 1)]
    steps = [sorted(batch.index.tolist()) for batch in alone]
    shared = [
        sorted(a.index.tolist() + b.index.tolist()) for a, b in zip(*map(list, pair), strict=True)
    ]
    assert shared == steps


@pytest.mark.parametrize("stop", range(23))
def test_stop_and_resume_anywhere_gives_exactly_what_is_left(stop: int) -> None:
    def fresh(prefetch: int = 3) -> TreeLoader:
        trees = some_trees(21)
        return TreeLoader(trees, batch_size=6, micro_batch_size=2, seed=2, prefetch=prefetch)

    whole = fresh(prefetch=0)
    wanted = ids([batch for _ in range(3) for batch in whole])
    assert len(wanted) == 3 * 11
    first = fresh()
    seen: list[list[int]] = []
    while len(seen) < stop:
        seen += ids(list(islice(iter(first), stop - len(seen))))
    second = fresh()
    second.load_state_dict(first.state_dict())
    left = ids([batch for _ in range(3) for batch in second])
    assert seen + left[: 33 - stop] == wanted


def test_batches_made_ahead_are_the_same_and_made_by_another_thread() -> None:
    here, makers = threading.get_ident(), set()

    class Noted(list[PromptTree]):
        def __getitem__(self, place: Any) -> Any:
            makers.add(threading.get_ident())
            return super().__getitem__(place)

    plain = list(TreeLoader(some_trees(21), batch_size=6, micro_batch_size=2))
    ahead = TreeLoader(Noted(some_trees(21)), batch_size=6, micro_batch_size=2, prefetch=2)
    for ours, theirs in zip(ahead, plain, strict=True):
        assert torch.equal(ours.completion_ids, theirs.completion_ids)
        assert (ours.ids, ours.totals, ours.first) == (theirs.ids, theirs.totals, theirs.first)
    assert here not in makers
    assert len(makers) == 1


def test_what_fails_ahead_is_raised_at_its_batch_and_what_is_left_is_not_made() -> None:
    made = []

    def batches() -> Any:
        for k in range(9):
            made.append(k)
            if k == 4:
                raise ValueError("the fifth")
            yield k

    def noted(k: int) -> int:
        made.append(k)
        return k

    ahead = made_ahead(batches(), 2)
    assert [next(ahead) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="the fifth"):
        next(ahead)
    made.clear()
    left = made_ahead(map(noted, range(99)), 2)
    assert [next(left), next(left)] == [0, 1]
    left.close()
    assert len(made) <= 4


@pytest.mark.parametrize("prefetch", [0, 2, 9])
def test_state_is_plain_numbers_that_point_to_the_next_batch(prefetch: int) -> None:
    loader = TreeLoader(some_trees(6), batch_size=2, prefetch=prefetch)
    batches = iter(loader)
    states = [loader.state_dict()]
    for _ in range(3):
        next(batches)
        states.append(loader.state_dict())
    assert [(s["epoch"], s["position"]) for s in states] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert all(type(value) is int for state in states for value in state.values())


def test_iterating_anew_after_loading_continues_but_otherwise_starts_the_next_epoch() -> None:
    loader = TreeLoader(some_trees(6), batch_size=2)
    next(iter(loader))
    iter(loader)
    assert loader.state_dict()["epoch"] == 1
    loader.load_state_dict({"epoch": 0, "position": 2, "length": 3})
    assert len(list(loader)) == 1


def test_rank_is_asked_of_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    loader = TreeLoader(some_trees(4), batch_size=4, shuffle=False)
    assert flat(list(loader)) == [2, 3]


def test_state_of_another_set_up_is_refused() -> None:
    state = TreeLoader(some_trees(8), batch_size=2).state_dict()
    with pytest.raises(ConfigError, match="epoch has 4 batches, this one 2"):
        TreeLoader(some_trees(8), batch_size=4).load_state_dict(state)


def test_epochs_left_early_resume_at_the_next_one() -> None:
    loader = TreeLoader(some_trees(12), batch_size=2, limit=4)
    assert len(loader) == 4
    left = ids(list(loader))
    assert left == ids(list(TreeLoader(some_trees(12), batch_size=2)))[:4]
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (1, 0)


def test_a_share_of_an_epoch_is_taken_and_its_length_is_the_whole() -> None:
    """Lightning takes the share of the length by itself."""
    loader = TreeLoader(some_trees(12), batch_size=2, limit=0.5)
    assert len(loader) == 6
    assert len(list(loader)) == 3
    assert loader.state_dict()["epoch"] == 1


def test_validation_keeps_the_order() -> None:
    loader = TreeLoader(some_trees(7), batch_size=3, shuffle=False)
    assert ids(list(loader)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert ids(list(loader)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_trees_of_like_length_share_a_step() -> None:
    trees = some_trees(640, completions=1)
    longest = {tree.index: tree.longest for tree in trees}

    def spread(loader: TreeLoader) -> float:
        gaps = [
            max(longest[k] for k in step) - min(longest[k] for k in step)
            for step in ids(list(loader))
        ]
        return sum(gaps) / len(gaps)

    bucketed = TreeLoader(trees, batch_size=8, length_window=16)
    assert spread(bucketed) < spread(TreeLoader(trees, batch_size=8, shuffle=False)) / 3
    lengths = [longest[step[0]] for step in ids(list(bucketed))]
    assert lengths != sorted(lengths)  # the steps themselves are shuffled


@pytest.mark.parametrize(
    ("batch_size", "micro", "world", "message"),
    [
        (6, 4, 1, "batch_size 6 is not a multiple of micro_batch_size 4"),
        (6, 2, 2, r"micro_batch_size 2 x 2 process\(es\)"),
        (5, None, 2, "batch_size 5 is not a multiple"),
        (0, None, 1, "batch_size 0"),
        (4, 0, 1, "micro_batch_size 0"),
        (8, 2, 4, "2 rows cannot be shared by 4 processes"),
    ],
)
def test_impossible_sizes(batch_size: int, micro: int | None, world: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TreeLoader(
            some_trees(2), batch_size=batch_size, micro_batch_size=micro, rank=0, world_size=world
        )


def test_a_position_inside_a_step_is_of_its_own_cut() -> None:
    """Steps of two micro-batches before; what was accumulated of a step is in no checkpoint."""
    assert [recut_position(place, 2, 1) for place in (0, 2, 6)] == [0, 1, 3]
    assert recut_position(3, 2, 2) == 3
    with pytest.raises(ConfigError, match="inside an optimizer step of 2 micro-batches"):
        recut_position(3, 2, 4)


def test_an_epoch_of_other_steps_is_not_continued() -> None:
    """12 rows in steps of 4, two micro-batches each; then steps of 6, then a row less."""
    state = TreeLoader(some_trees(12), batch_size=4, micro_batch_size=2).state_dict()
    TreeLoader(some_trees(12), batch_size=4, micro_batch_size=1).load_state_dict(state)
    for rows, size in ((12, 6), (11, 4)):
        other = TreeLoader(some_trees(rows), batch_size=size, micro_batch_size=1)
        with pytest.raises(ConfigError, match="Resume with the same data"):
            other.load_state_dict(state)
