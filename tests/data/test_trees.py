import pytest
import torch

from alignlab.data.trees import PromptTree, StepTotals, collate, in_length_order, totals_of

PAIR = PromptTree(4, "pair", (1, 5), ((7, 2), (8,)))
TURNS = PromptTree(9, "turns", (1,), ((3, 4, 2),), loss_masks=((True, False, True),))


def lone() -> PromptTree:
    return PromptTree(2, "lone", (1, 6, 6), ())


def test_batch_of_ragged_trees() -> None:
    batch = collate([PAIR, TURNS])
    assert batch.prompt_ids.tolist() == [[1, 5], [1, 0]]
    assert batch.prompt_lengths.tolist() == [2, 1]
    assert batch.completion_ids.tolist() == [[7, 2, 0], [8, 0, 0], [3, 4, 2]]
    assert batch.completion_lengths.tolist() == [2, 1, 3]
    assert batch.loss_mask.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, False, True],
    ]
    assert batch.token_mask.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
    ]
    assert batch.group.tolist() == [0, 0, 1]
    assert batch.index.tolist() == [4, 9]
    assert batch.ids == ["pair", "turns"]
    assert batch.labels is None
    assert batch.totals == StepTotals(prompts=2, completions=3, tokens=5)


def test_prompts_without_completions() -> None:
    batch = collate([lone(), lone()])
    assert batch.prompt_ids.tolist() == [[1, 6, 6], [1, 6, 6]]
    assert batch.completion_ids.shape == (0, 0)
    assert (batch.group.dtype, batch.completion_lengths.dtype) == (torch.long, torch.long)
    assert batch.totals == StepTotals(2, 0, 0)
    assert lone().longest == 3


@pytest.mark.parametrize(
    ("padding", "max_length", "prompt", "completion"),
    [("longest", None, 2, 3), ("bucket", None, 16, 16), ("max_length", 20, 20, 20)],
)
def test_widths(padding, max_length: int | None, prompt: int, completion: int) -> None:
    batch = collate([PAIR, TURNS], padding=padding, max_length=max_length)
    assert batch.prompt_ids.shape == (2, prompt)
    assert batch.completion_ids.shape == batch.loss_mask.shape == (3, completion)
    assert batch.loss_mask.sum() == 5
    assert batch.completion_ids.sum() == 7 + 2 + 8 + 3 + 4 + 2


def test_bucket_keeps_a_full_bucket() -> None:
    full = PromptTree(0, "full", (1,) * 16, ((2,) * 17,))
    batch = collate([full], padding="bucket")
    assert (batch.prompt_ids.shape[1], batch.completion_ids.shape[1]) == (16, 32)


@pytest.mark.parametrize("max_length", [2, None])
def test_width_that_is_too_small(max_length: int | None) -> None:
    with pytest.raises(ValueError, match="needs max_length >= "):
        collate([TURNS], padding="max_length", max_length=max_length)


def test_labels_are_floats_in_the_order_of_completions() -> None:
    rows = [PromptTree(k, "", (1,), ((2,), (3,)), labels=(k, k + 0.5)) for k in (1, 2)]
    labels = collate(rows).labels
    assert labels is not None
    assert (labels.tolist(), labels.dtype) == ([1.0, 1.5, 2.0, 2.5], torch.float32)
    whole = collate([PromptTree(0, "", (1,), ((2,),), labels=(1,))]).labels
    assert whole is not None
    assert whole.dtype == torch.float32


def test_totals_count_trained_tokens_and_add_up() -> None:
    assert totals_of([PAIR]) == StepTotals(1, 2, 3)
    assert totals_of([TURNS]) == StepTotals(1, 1, 2)
    assert totals_of([PAIR, TURNS]) == StepTotals(2, 3, 5)
    assert collate([PAIR], totals=StepTotals(7, 8, 9)).totals == StepTotals(7, 8, 9)


def test_to_moves_every_tensor_and_keeps_the_rest() -> None:
    batch = collate([PAIR])
    moved = batch.to("meta")
    assert moved.prompt_ids.device.type == moved.loss_mask.device.type == "meta"
    assert (moved.ids, moved.totals) == (batch.ids, batch.totals)
    assert batch.prompt_ids.device.type == "cpu"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ()}, "need a token each"),
        ({"completions": ((2,), ())}, "need a token each"),
        ({"loss_masks": ((True,),)}, "loss masks are not as long"),
        ({"loss_masks": ((True,), (True, False))}, "loss masks are not as long"),
        ({"labels": (1.0,)}, "one label for each completion"),
    ],
)
def test_trees_that_cannot_be(settings: dict, message: str) -> None:
    whole = {"prompt": (1,), "completions": ((2,), (3,))}
    with pytest.raises(ValueError, match=message):
        PromptTree(0, "bad", **(whole | settings))


def test_labelled_and_unlabelled_trees_do_not_mix() -> None:
    labelled = PromptTree(0, "", (1,), ((2,),), labels=(1.0,))
    with pytest.raises(ValueError, match="with labels and trees without"):
        collate([labelled, PAIR])


def test_mismatched_gives_each_prompt_the_completions_of_the_next_other_prompt() -> None:
    """PAIR and its double ask the same: both get the completions of TURNS, TURNS those of PAIR."""
    double = PromptTree(5, "double", (1, 5), ((9,),))
    batch = collate([PAIR, double, TURNS])
    others = batch.mismatched()
    assert others is not None
    assert others.prompt_ids.tolist() == batch.prompt_ids.tolist()
    assert others.group.tolist() == [0, 1, 2, 2]
    assert others.completion_ids.tolist() == [[3, 4, 2], [3, 4, 2], [7, 2, 0], [8, 0, 0]]
    assert others.completion_lengths.tolist() == [3, 3, 2, 1]
    assert others.loss_mask[0].tolist() == [True, False, True]
    assert others.loss_mask.sum() == 2 + 2 + 2 + 1


def test_a_prompt_that_only_begins_like_another_is_another() -> None:
    """Padding must not make (1, 5) and (1, 5, 0) one text; labels go with their completions."""
    trees = [
        PromptTree(k, str(k), prompt, ((2 + k,),), labels=(float(k),))
        for k, prompt in enumerate([(1, 5), (1, 5, 0), (1, 5)])
    ]
    others = collate(trees).mismatched()
    assert others is not None
    assert others.completion_ids.flatten().tolist() == [3, 4, 3]
    assert others.labels is not None
    assert others.labels.tolist() == [1.0, 2.0, 1.0]


def test_one_prompt_has_nothing_to_be_mismatched_with() -> None:
    assert collate([PAIR]).mismatched() is None
    assert collate([PAIR, PAIR]).mismatched() is None


def test_prompts_as_completions() -> None:
    prompts, rows = collate([lone(), TURNS, PAIR]).prompts_as_completions()
    assert rows.tolist() == [0, 2]
    assert prompts.prompt_ids.tolist() == [[1], [1]]
    assert prompts.completion_ids.tolist() == [[6, 6], [5, 0]]
    assert prompts.completion_lengths.tolist() == [2, 1]
    assert prompts.loss_mask.tolist() == [[True, True], [True, False]]
    assert (prompts.group.tolist(), prompts.index.tolist()) == ([0, 1], [2, 4])
    assert prompts.ids == ["lone", "pair"]


def test_batches_in_length_order_fill_up_to_their_size_and_never_cut_a_tree() -> None:
    """Lengths 4, 2, 3, 2 with 1, 2, 1, 3 completions in batches of up to 3."""
    sizes = [(3, 1), (1, 2), (2, 1), (1, 3)]
    trees = [PromptTree(i, str(i), (1,) * n, ((5,),) * k) for i, (n, k) in enumerate(sizes)]
    batches = list(in_length_order(trees, 3))
    assert [places for places, _ in batches] == [[1], [3], [2, 0]]
    assert [batch.index.tolist() for _, batch in batches] == [[1], [3], [2, 0]]
    assert [places for places, _ in in_length_order(trees, 2)] == [[1], [3], [2, 0]]
    assert list(in_length_order([], 3)) == []
