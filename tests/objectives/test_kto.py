"""KTO by hand; its divergence from mismatched completions, of the whole step before."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.objectives.kto import KTO, desirable, kto_loss
from tests.objectives.direct import PAIRS, by_loop, column, moved, random_logps

YES, NO = torch.tensor([True]), torch.tensor([False])


@pytest.mark.parametrize(
    ("policy", "ref", "label", "loss", "reward"),
    [
        (-1.0, -3.0, YES, 2 * 0.354344, 1.0),  # 1 - sigma(1 - 0.4)
        (-3.0, -1.0, NO, 3 * 0.197816, -1.0),  # 1 - sigma(0.4 + 1)
    ],
)
def test_value_worked_by_hand(policy, ref, label, loss, reward):
    """beta 0.5 and a divergence of 0.8 nats, which is 0.4 in rewards; weights 2 and 3."""
    kl = torch.tensor(0.8, dtype=torch.float64)
    ours, theirs = column(policy, ref)
    losses, rewards = kto_loss(ours, theirs, label, kl, beta=0.5, lambda_d=2.0, lambda_u=3.0)
    assert losses.item() == pytest.approx(loss, abs=1e-5)
    assert rewards.item() == reward


def test_slopes_and_no_gradient_through_the_divergence():
    """sigma' is 1/4 at r = beta z0 and falls off on both sides: far completions teach nothing."""
    (policy,) = column(0.8)
    kl = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    for label, slope in ((YES, -0.125), (NO, 0.125)):
        logps = policy.clone().requires_grad_()
        kto_loss(logps, zero, label, kl, beta=0.5)[0].sum().backward()
        assert logps.grad is not None
        assert logps.grad.item() == pytest.approx(slope)
    assert kl.grad is None
    far = torch.tensor([60.0], dtype=torch.float64, requires_grad=True)
    kto_loss(far, zero, YES, kl, beta=1.0)[0].sum().backward()
    assert far.grad is not None
    assert abs(far.grad.item()) < 1e-20


def test_a_negative_estimate_counts_as_none():
    policy, ref = random_logps(0, 2)
    label = torch.tensor([True, False, True, True, False])
    none = kto_loss(policy, ref, label, torch.tensor(0.0), beta=0.3)
    for found, expected in zip(
        kto_loss(policy, ref, label, torch.tensor(-2.0), beta=0.3), none, strict=True
    ):
        assert_close(found, expected)


def judged() -> list[PromptTree]:
    """The pairs taken apart, each completion a row of its own."""
    return [
        PromptTree(
            2 * i + k,
            f"{tree.id}{k}",
            tree.prompt,
            (completion,),
            (tree.loss_masks[k],) if tree.loss_masks else None,
            labels=(1.0 - k,),
        )
        for i, tree in enumerate(PAIRS)
        for k, completion in enumerate(tree.completions)
    ]


def test_pairs_are_two_rows_the_first_desirable(build):
    kto = KTO(build("llama"), torch.optim.AdamW, beta=0.3, lambda_d=1.5, lambda_u=0.7)
    ref, _ = by_loop(kto.policy, PAIRS)
    sums, _ = by_loop(moved(kto.policy), PAIRS)
    kto.kl.fill_(0.4)
    label = torch.tensor([True, False] * 3)
    kl = torch.tensor(0.4, dtype=torch.float64)
    expected, rewards = kto_loss(sums, ref, label, kl, beta=0.3, lambda_d=1.5, lambda_u=0.7)
    with torch.no_grad():
        losses, means = kto.losses(collate(PAIRS))
        apart, _ = kto.losses(collate(judged()))
    assert_close(losses, expected)
    assert_close(apart, losses)
    assert_close(means["rewards/desirable"].value, rewards[::2].mean())
    assert_close(means["rewards/undesirable"].value, rewards[1::2].mean())
    assert float(means["kl"]) == pytest.approx(0.4)


def test_before_training_half_of_each_weight_is_lost(build):
    kto = KTO(build("llama"), torch.optim.AdamW, lambda_d=1.5, lambda_u=0.7)
    losses, _ = kto.losses(collate(PAIRS))
    assert losses.tolist() == pytest.approx([0.75, 0.35] * 3)


def mismatches(trees: list[PromptTree], other: list[int]) -> list[PromptTree]:
    return [
        PromptTree(0, "", tree.prompt, trees[k].completions, trees[k].loss_masks)
        for tree, k in zip(trees, other, strict=True)
    ]


def test_the_divergence_is_that_of_the_whole_step_before(build, monkeypatch):
    """Two micro-batches, of two prompts and of two (one is in both), then a step is taken."""
    kto = KTO(build("llama"), torch.optim.AdamW, beta=0.3)
    strategy = SimpleNamespace(reduce=lambda x, reduce_op: x)
    trainer = SimpleNamespace(
        strategy=strategy, accumulate_grad_batches=2, world_size=1, _results={}
    )
    monkeypatch.setattr(KTO, "trainer", trainer)
    monkeypatch.setattr(KTO, "log", lambda *args, **rest: None)
    parts = [PAIRS[:2], PAIRS[1:]]
    crossed = [tree for part in parts for tree in mismatches(part, [1, 0])]
    ref, _ = by_loop(kto.policy, crossed)
    sums, _ = by_loop(moved(kto.policy), crossed)
    expected = float((sums - ref).mean())
    assert abs(expected) > 0.1
    for part in parts:
        kto.training_step(collate(part), 0)
        assert kto.kl == 0  # of this step nothing is used yet
    assert not kto.kl_sums.requires_grad
    kto.on_before_optimizer_step(torch.optim.SGD(kto.parameters()))
    assert float(kto.kl) == pytest.approx(max(0.0, expected), abs=1e-6)
    assert kto.kl_sums.tolist() == [0.0, 0.0]
    kto.kl.fill_(0.25)
    kto.training_step(collate(PAIRS[:1]), 0)  # a prompt alone has no others
    kto.on_before_optimizer_step(torch.optim.SGD(kto.parameters()))
    assert float(kto.kl) == 0.25  # so the last estimate stands


def test_steps_of_one_prompt_are_refused(build, monkeypatch):
    loader = SimpleNamespace(batch_size=1, micro_batches=4)
    trainer = SimpleNamespace(train_dataloader=loader, accumulate_grad_batches=4)
    monkeypatch.setattr(KTO, "trainer", trainer)
    with pytest.raises(ConfigError, match=r"data\.init_args\.batch_size to 2"):
        KTO(build("llama"), torch.optim.AdamW).on_train_start()


def test_rows_without_a_judgement_are_refused():
    demonstration = PromptTree(0, "a", (1,), ((4,),))
    with pytest.raises(DataError, match="Use JudgedData or PreferenceData"):
        desirable(collate([demonstration]))


@pytest.mark.parametrize(
    "setting", [{"beta": 0.0}, {"lambda_d": -1.0}, {"lambda_u": -1.0}, {"beta": math.nan}]
)
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"KTO needs {name} .* Set model\.init_args\.{name}"):
        KTO(build("llama"), torch.optim.AdamW, **setting)
