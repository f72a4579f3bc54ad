"""FLOP of forwards and backward passes, against counts by hand and PyTorch's own counter."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alignlab.data.trees import PromptTree, collate
from alignlab.models.work import Work, active_weights

# A layer of tests.tiny's llama, heads of 8: q and o 16 x 16, k and v 16 x 8, three of 16 x 24.
LINEAR = 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24)
TREES = collate([PromptTree(0, "a", (1, 5), ((3, 4, 5), (6,)), ((True,) * 3, (False,)))])
TOKENS, PAIRS, SCORED = 6, 3 + (3 + 4 + 5) + 3, 3  # 1 + 2, what the completions' tokens see
FORWARD = 2 * LINEAR * TOKENS + 4 * 2 * 16 * PAIRS + 2 * 32 * 16 * SCORED


def test_a_forward_by_hand_and_a_step_three_times_as_much(build):
    policy = build()
    work = Work(policy)
    policy.meter = work.add
    with torch.no_grad():
        policy(TREES)
    assert work.flops == FORWARD
    assert work.tokens == 0  # nothing was learnt from it
    policy(TREES)
    assert work.flops == FORWARD + 3 * FORWARD
    assert work.tokens == TOKENS


def test_frozen_weights_get_no_gradients(build):
    """The gradients of states are made all the same: with no learning layer but one, 2 of 3."""
    policy = build()
    policy.requires_grad_(False)
    own = policy.model.model.layers[0].mlp.up_proj.weight.requires_grad_(True)
    work = Work(policy)
    work.add(TREES, TREES.loss_mask)
    attention = 4 * 2 * 16 * PAIRS
    assert work.flops == 2 * FORWARD + attention + 2 * own.numel() * TOKENS


def test_it_is_what_pytorch_counts_on_a_row_without_padding(build):
    """Eager attention computes all pairs of a row, not only those that a token may see."""
    policy = build()
    policy.model.set_attn_implementation("eager")
    policy.layout = "flat"
    n = 12
    row = collate([PromptTree(0, "a", (1, 5), (tuple(range(3, n + 2)),))])  # the last is not read
    work = Work(policy)
    work.add(row, row.loss_mask)
    with FlopCounterMode(display=False) as counter:
        policy(row).logps.sum().backward()
    own = work.flops - 3 * 2 * LINEAR  # per token; the row's last one is read by nothing
    seen = (n + 1) * (n + 2) // 2  # pairs, of which eager attention computes n * n
    own += 3 * 4 * 2 * 16 * (n * n - seen)
    assert counter.get_total_flops() == pytest.approx(own, rel=0.02)


def test_of_experts_those_that_a_token_passes():
    block = nn.Module()
    block.experts = nn.Linear(4, 8, bias=False)
    block.own = nn.Linear(4, 4)
    config = SimpleNamespace(num_experts=8, num_experts_per_tok=2)
    config.get_text_config = lambda decoder: config
    assert active_weights([block], config) == 32 * 2 / 8 + 16
