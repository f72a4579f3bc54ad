"""A packed row gives what flat rows give, to the last digits, in every family."""

import random
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.errors import ConfigError
from alignlab.models import Policy
from alignlab.models.attention import Piece, branches_of
from alignlab.models.layouts import flat_rows, length_groups, packed_row
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
@pytest.mark.parametrize(("most", "block"), [(1, 64), (2, 10), (2, 64), (9, 0), (9, 24)])
def test_packed_rows_equal_flat_rows_with_gradients(build, monkeypatch, family, most, block):
    """Blocks of several trees, and trees that are larger than one, in turn and together."""
    monkeypatch.setattr("alignlab.models.attention.BLOCK", block)
    policy = build(family)
    batch = ragged_batch(most, prompts=4, most=most)
    found = {}
    for layout in ("flat", "packed"):
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
    flat, other = found["flat"], found["packed"]
    for name in ("token_logps", "logps", "entropies", "hidden"):
        assert_close(getattr(other[0], name), getattr(flat[0], name), rtol=0, atol=1e-10)
    for name, gradient in flat[1].items():
        assert_close(other[1][name], gradient, rtol=0, atol=1e-10, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", [0, 12, 64])
def test_a_packed_document_never_sees_another(build, monkeypatch, family, block):
    """Whatever is in all other documents, not a bit of this one's log-probs changes."""
    monkeypatch.setattr("alignlab.models.attention.BLOCK", block)
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
@pytest.mark.parametrize("seed", range(4))
def test_a_packed_row_holds_every_token_once(seed, keep_last):
    batch = ragged_batch(seed, prompts=12, most=1 + seed)
    row = packed_row(batch, keep_last=keep_last)
    tokens = int(batch.prompt_lengths.sum() + batch.completion_lengths.sum())
    assert row.input_ids.shape == (1, tokens - (0 if keep_last else len(batch.group)))
    assert row.branches is not None
    assert sum(piece.tokens for piece in row.branches.pieces) == row.input_ids.numel()


def test_packed_rows_by_hand(monkeypatch):
    """Blocks of up to 7 tokens: the first tree has 8, and the last two have 6 together."""
    monkeypatch.setattr("alignlab.models.attention.BLOCK", 7)
    trees = [
        PromptTree(0, "a", (1, 2, 3), ((4, 5), (6, 7, 8))),
        PromptTree(1, "b", (9,), ((3, 4),)),
        PromptTree(2, "c", (6,), ((7,), (8,))),
    ]
    batch = collate(trees)
    row = packed_row(batch, keep_last=True)
    assert row.position_ids is not None
    assert row.branches is not None
    assert row.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 4, 6, 7, 8]]
    assert row.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 2, 0, 1, 1]]
    assert row.columns(1, after=False).tolist() == [[2], [2], [8], [11], [11]]
    assert row.columns(2, after=True).tolist() == [[3, 4], [5, 6], [9, 10], [12, 13], [13, 14]]
    assert row.branches.pieces == (
        Piece(5),
        Piece(3, prompt=3),
        Piece(6, block=((1, 2), (1, 1, 1))),
    )
    assert row.branches.cells == 25 / 2 + 3 * 3 + 9 / 2 + 36
    behind, blocks = row.branches.masks(torch.zeros(1))
    assert behind.eq(0).int().tolist() == [
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1],
    ]
    assert blocks.eq(0).int()[0, :6, :6].tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 0, 1],  # the second completion sees the prompt and itself, not the first
    ]
    shorter = packed_row(batch, keep_last=False)
    assert shorter.branches is not None
    assert shorter.input_ids.tolist() == [[1, 2, 3, 4, 6, 7, 9, 3, 6]]
    assert shorter.branches.pieces == (
        Piece(6, block=((3, 1, 2),)),
        Piece(3, block=((1, 1), (1,))),
    )


def test_short_completions_behind_a_long_prompt_share_a_call(monkeypatch):
    monkeypatch.setattr("alignlab.models.attention.BLOCK", 7)
    branches = branches_of([0] * 5, [9], [3, 4, 2, 5, 8])
    assert branches.pieces == (
        Piece(12),
        Piece(6, prompt=9, block=((0, 4, 2),)),
        Piece(5, prompt=9),
        Piece(8, prompt=9),
    )
    behind, blocks = branches.masks(torch.zeros(1))
    assert behind.shape == (8, 17)
    assert blocks.eq(0).int()[0, :6, :6].tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_a_row_is_made_once_for_all_models_that_read_the_batch():
    batch = ragged_batch(0, prompts=3, most=2)
    assert packed_row(batch, keep_last=True) is packed_row(batch, keep_last=True)
    shorter = batch.shortened(torch.ones_like(batch.completion_lengths))
    tokens = packed_row(shorter, keep_last=True).input_ids.numel()
    assert tokens == int(batch.prompt_lengths.sum()) + len(batch.group)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_hold_when_activations_are_computed_again(build, family, checkpointing):
    policy = build(family).train()
    if checkpointing:
        policy.model.activation_checkpointing_enable()
    batch = ragged_batch(7, prompts=4, most=3)
    found = []
    for layout in ("flat", "packed"):
        policy.layout = layout
        policy.zero_grad()
        policy(batch).logps.sum().backward()
        found.append({name: weight.grad for name, weight in policy.named_parameters()})
    for name, gradient in found[0].items():
        assert_close(found[1][name], gradient, rtol=0, atol=1e-10, msg=name)


def test_a_saved_model_names_no_attention_of_ours(build, tmp_path):
    policy = build("llama")
    assert policy.layout == "packed"
    policy.save(tmp_path)
    assert "branches" not in (tmp_path / "config.json").read_text()
    assert policy.model.config._attn_implementation == "sdpa"


def test_models_that_look_at_a_window_stay_flat(words):
    """Row places, not positions, bound a sliding window: documents behind it would see less."""
    config = {"model_type": "mistral", "sliding_window": 4} | SMALL["llama"]
    policy = Policy(config=config, tokenizer=str(words), layout="packed")
    assert policy.layout == "flat"
    assert policy.layout_report == "flat: sliding_window 4 bounds what a token sees"
    kept = Policy(config=config | {"sliding_window": None}, tokenizer=str(words), layout="packed")
    assert kept.layout == "packed"
    assert kept.layout_report.startswith("packed: agrees with flat rows to ")
    eager = Policy(
        config=config | {"sliding_window": None}, tokenizer=str(words), attn_implementation="eager"
    )
    assert eager.layout_report == "flat: the attention function is eager, packed rows need sdpa"


def test_a_layout_that_there_is_not_is_refused(words):
    other: Any = "tree"
    with pytest.raises(ConfigError, match=r"layout 'tree' is unknown\. Set auto, packed or flat"):
        Policy(config=SMALL["llama"] | {"model_type": "llama"}, tokenizer=str(words), layout=other)


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
    for layout in ("flat", "packed"):
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


def test_flat_rows_by_hand():
    trees = [PromptTree(0, "a", (7, 8), ((3,), (4, 5))), PromptTree(1, "b", (9,), ((6, 2),))]
    batch = collate(trees)
    flat = flat_rows(batch, keep_last=True)
    assert flat.input_ids.tolist() == [[7, 8, 3, 0], [7, 8, 4, 5], [9, 6, 2, 0]]
    assert flat_rows(batch, keep_last=False).input_ids.tolist() == [[7, 8, 3], [7, 8, 4], [9, 6, 2]]
