"""Tree and packed rows give what flat ones give, to the last digits, in every family."""

import random

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.models import Policy
from alignlab.models.layouts import flat_rows, length_groups, packed_rows, plan, tree_rows
from tests.tiny import EOS, VOCABULARY
from tests.tiny import FAMILIES as SMALL

FAMILIES = ["llama", "gpt2", "qwen2", "qwen3"]


def ragged_batch(seed: int, prompts: int, most: int) -> PromptTrees:
    """Prompts of 1-6 tokens with 1 to ``most`` completions of 1-7 tokens, some ending in EOS."""
    draw = random.Random(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(n))

    trees = []
    for i in range(prompts):
        completions = tuple(ids(draw.randint(1, 7)) for _ in range(draw.randint(1, most)))
        completions = (*completions[:-1], (*completions[-1], EOS))
        masks = tuple((*(draw.random() < 0.8 for _ in c[:-1]), True) for c in completions)
        trees.append(PromptTree(i, f"row {i}", ids(draw.randint(1, 6)), completions, masks))
    return collate(trees)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("most", [1, 2, 9])
@pytest.mark.parametrize("shared", ["tree", "packed"])
def test_shared_rows_equal_flat_rows_with_gradients(build, family, most, shared):
    policy = build(family)
    batch = ragged_batch(most, prompts=4, most=most)
    found = {}
    for layout in ("flat", shared):
        policy.layout = layout
        policy.zero_grad()
        scores = policy(batch, want=("entropies", "hidden"))
        (
            scores.token_logps
            * torch.linspace(0.5, 1.5, scores.token_logps.numel()).view_as(scores.token_logps)
        ).sum().backward()
        grads = {name: p.grad for name, p in policy.named_parameters()}
        assert all(g is not None for g in grads.values())
        found[layout] = scores, grads
    flat, other = found["flat"], found[shared]
    for name in ("token_logps", "logps", "entropies", "hidden"):
        assert_close(getattr(other[0], name), getattr(flat[0], name), rtol=0, atol=1e-10)
    for name, gradient in flat[1].items():
        assert_close(other[1][name], gradient, rtol=0, atol=1e-10, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_document_never_sees_another(build, family):
    """Whatever is in all other documents, not a bit of this one's log-probs changes."""
    policy = build(family)
    policy.layout = "packed"

    def batch(shift: list[int]) -> PromptTrees:
        """Documents of one long and seven short ones, each moved on by its own ``shift``."""
        draw = random.Random(0)

        def ids(n: int, by: int) -> tuple[int, ...]:
            return tuple((draw.randrange(VOCABULARY) + by) % VOCABULARY for _ in range(n))

        sizes = [(6, 14), (1, 3), (2, 5), (4, 1), (3, 6), (5, 2), (2, 2), (1, 1)]
        return collate(
            [
                PromptTree(p, str(p), ids(sizes[p][0], by), (ids(sizes[p][1], by),))
                for p, by in enumerate(shift)
            ]
        )

    before = policy(batch([0] * 8)).token_logps
    assert len(packed_rows(batch([0] * 8), torch.float64, keep_last=False).input_ids) == 3
    for p in range(8):
        after = policy(batch([0 if q == p else 3 for q in range(8)])).token_logps
        assert torch.equal(after[p], before[p])
        assert not any(torch.equal(after[q], before[q]) for q in range(8) if q != p)


@torch.no_grad()
@pytest.mark.parametrize("after", [False, True])
def test_packed_states_before_and_after_each_token(build, after):
    policy = build("qwen3")
    batch = ragged_batch(2, prompts=5, most=3)
    found = []
    for layout in ("flat", "packed"):
        policy.layout = layout
        found.append(policy.hidden_states(batch, batch.token_mask, after=after))
    assert_close(found[1], found[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("keep_last", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_packed_rows_are_never_longer_than_flat_ones(seed, keep_last):
    batch = ragged_batch(seed, prompts=12, most=1 + seed % 4)
    flat = flat_rows(batch, keep_last=keep_last).input_ids
    packed = packed_rows(batch, torch.float32, keep_last=keep_last).input_ids
    assert packed.shape[1] <= flat.shape[1]
    assert packed.numel() < flat.numel()


def test_packed_rows_by_hand():
    """The longest branch has 5 tokens: 8 9 | 3 4 5. Behind the shorter two, 6 | 7 still fits."""
    trees = [
        PromptTree(0, "a", (1, 2), ((3,), (4,))),
        PromptTree(1, "b", (8, 9), ((3, 4, 5),)),
        PromptTree(2, "c", (6,), ((7,),)),
        PromptTree(3, "d", (5, 5), ((5,),)),
    ]
    rows = packed_rows(collate(trees), torch.float32, keep_last=True)
    assert rows.position_ids is not None
    assert rows.attention_mask is not None
    assert rows.input_ids.tolist() == [[8, 9, 3, 4, 5], [1, 2, 3, 4, 0], [5, 5, 5, 6, 7]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 2, 0], [0, 1, 2, 0, 1]]
    assert rows.row.tolist() == [1, 1, 0, 2, 2]
    assert rows.columns(1, after=False).tolist() == [[1], [1], [1], [3], [1]]
    assert rows.columns(1, after=True).tolist() == [[2], [3], [2], [4], [2]]
    assert rows.attention_mask.eq(0)[:, 0].int().tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]],
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]],
    ]
    shorter = packed_rows(collate(trees), torch.float32, keep_last=False)
    assert shorter.input_ids.tolist() == [[8, 9, 3, 4], [1, 2, 5, 5], [6, 0, 0, 0]]


def test_models_that_look_at_a_window_stay_flat(words):
    """Row places, not positions, bound a sliding window: documents behind it would see less."""
    config = {"model_type": "mistral", "sliding_window": 4} | SMALL["llama"]
    policy = Policy(config=config, tokenizer=str(words), layout="packed")
    assert policy.layout == "flat"
    assert policy.layout_report == "flat: sliding_window 4 bounds what a token sees"
    kept = Policy(config=config | {"sliding_window": None}, tokenizer=str(words), layout="packed")
    assert kept.layout == "packed"
    assert "packed rows agree with flat ones" in kept.layout_report


@pytest.mark.parametrize("after", [False, True])
def test_flat_rows_computed_in_length_groups_are_the_same(build, monkeypatch, after):
    policy = build("gpt2")
    policy.layout = "flat"
    batch = ragged_batch(5, prompts=6, most=3)
    select = batch.token_mask
    whole = policy.hidden_states(batch, select, after=after)
    monkeypatch.setattr("alignlab.models.layouts.CALL_COST", 0)
    groups = length_groups(batch, 4)
    assert len(groups) == 4
    assert sorted(torch.cat(groups).tolist()) == list(range(len(batch.group)))
    assert_close(policy.hidden_states(batch, select, after=after), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_of_one_equals_its_place_in_a_batch(build, family):
    policy = build(family)
    batch = ragged_batch(1, prompts=5, most=3)
    together = policy(batch)
    draw = 0
    for p in range(5):
        k = int((batch.group == p).sum())
        alone = collate(
            [
                PromptTree(
                    0,
                    "alone",
                    tuple(batch.prompt_ids[p, : batch.prompt_lengths[p]].tolist()),
                    tuple(
                        tuple(batch.completion_ids[m, : batch.completion_lengths[m]].tolist())
                        for m in range(draw, draw + k)
                    ),
                )
            ]
        )
        scores = policy(alone).token_logps
        for j in range(k):
            n = int(batch.completion_lengths[draw + j])
            kept = batch.loss_mask[draw + j, :n]
            assert_close(
                scores[j, :n][kept], together.token_logps[draw + j, :n][kept], rtol=0, atol=1e-12
            )
        draw += k


@torch.no_grad()
def test_log_probs_are_those_of_the_models_own_logits(build):
    """A double loop over completions and tokens, with the model's own forward."""
    policy = build("llama")
    batch = ragged_batch(3, prompts=3, most=3)
    scores = policy(batch)
    for m, p in enumerate(batch.group.tolist()):
        prompt = batch.prompt_ids[p, : batch.prompt_lengths[p]].tolist()
        completion = batch.completion_ids[m, : batch.completion_lengths[m]].tolist()
        total = 0.0
        for t, token in enumerate(completion):
            logits = policy.model(torch.tensor([prompt + completion[:t]])).logits[0, -1]
            expected = float(logits.log_softmax(-1)[token])
            if batch.loss_mask[m, t]:
                assert float(scores.token_logps[m, t]) == pytest.approx(expected, abs=1e-10)
                total += expected
            else:
                assert float(scores.token_logps[m, t]) == 0.0
        assert float(scores.logps[m]) == pytest.approx(total, abs=1e-9)
        assert int(scores.lengths[m]) == int(batch.loss_mask[m].sum())


def test_what_stands_in_padding_never_matters(build):
    policy = build("gpt2")
    batch = ragged_batch(4, prompts=4, most=3)
    before = {}
    for layout in ("flat", "tree", "packed"):
        policy.layout = layout
        before[layout] = policy(batch).token_logps
    beyond = ~batch.token_mask
    batch.completion_ids[beyond] = EOS  # pad equal to EOS, or to anything
    columns = torch.arange(batch.prompt_ids.shape[1])
    batch.prompt_ids[columns >= batch.prompt_lengths[:, None]] = EOS
    for layout, expected in before.items():
        policy.layout = layout
        logps = policy(batch).token_logps
        assert torch.isfinite(logps).all()
        assert torch.equal(logps, expected)


def test_rows_by_hand():
    trees = [PromptTree(0, "a", (7, 8), ((3,), (4, 5))), PromptTree(1, "b", (9,), ((6, 2),))]
    batch = collate(trees)
    flat = flat_rows(batch, keep_last=True)
    assert flat.input_ids.tolist() == [[7, 8, 3, 0], [7, 8, 4, 5], [9, 6, 2, 0]]
    assert flat_rows(batch, keep_last=False).input_ids.tolist() == [[7, 8, 3], [7, 8, 4], [9, 6, 2]]
    tree = tree_rows(batch, 2, torch.float32)
    assert tree.position_ids is not None
    assert tree.attention_mask is not None
    assert tree.input_ids.tolist() == [[7, 8, 3, 4, 5], [9, 6, 2, 0, 0]]
    assert tree.position_ids.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 0, 0]]
    assert tree.columns(2, after=False).tolist() == [[1, 2], [1, 3], [0, 1]]
    assert tree.columns(1, after=True).tolist() == [[2], [3], [1]]
    seen = tree.attention_mask.eq(0)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],  # the second completion sees the prompt and itself, not the first
        [1, 1, 0, 1, 1],
    ]


def test_planner_prefers_trees_for_long_prompts_and_flat_for_long_completions():
    def batch(prompt: int, completion: int, k: int) -> PromptTrees:
        tree = PromptTree(0, "x", (1,) * prompt, ((2,) * completion,) * k)
        return collate([tree, tree])

    chosen = {
        shape: plan(batch(*shape), width=256, dense_cost=0.6, max_tokens=4096)
        for shape in [(300, 40, 2), (64, 512, 9), (8, 200, 9)]
    }
    assert chosen[300, 40, 2] == 2
    assert chosen[64, 512, 9] == 1
    assert chosen[8, 200, 9] == 1
    assert plan(batch(300, 40, 2), width=256, dense_cost=0.6, max_tokens=100) == 1  # memory cap
