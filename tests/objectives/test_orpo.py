"""ORPO by hand; its log-odds near probabilities of 1 and of 0; imitating the prompt too."""

import decimal
import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.objectives.orpo import ORPO, orpo_loss
from tests.objectives.direct import PAIRS, by_loop, column

MEANS = [-1e-12, -1e-9, -1e-4, -0.1, -math.log(2), -1.0, -5.0, -20.0, -50.0]


def test_value_worked_by_hand():
    """p = 1/2 and 1/5 have odds 1 and 1/4: log(1 + 1/4) = 0.223144, and -log(1/2) = 0.693147."""
    logps = column(3 * math.log(0.5), 2 * math.log(0.2), 3, 2)
    losses, chosen, rejected = orpo_loss(*logps, lam=0.5)
    assert losses.item() == pytest.approx(0.693147 + 0.5 * 0.223144, abs=1e-6)
    assert (chosen.item(), rejected.item()) == pytest.approx((0.0, -math.log(4)))


def test_gradient_worked_by_hand():
    """d log-odds / d mean = 1 / (1 - p): 2 and 5/4; 1 - sigma(log 4) = 1/5; 3 and 2 tokens."""
    pc, pr, *lengths = column(3 * math.log(0.5), 2 * math.log(0.2), 3, 2)
    loss = orpo_loss(pc.requires_grad_(), pr.requires_grad_(), *lengths, lam=0.5)
    loss.losses.sum().backward()
    assert pc.grad is not None
    assert pr.grad is not None
    assert pc.grad.item() == pytest.approx((-1 - 0.5 * 0.2 * 2) / 3)
    assert pr.grad.item() == pytest.approx(0.5 * 0.2 * 1.25 / 2)


def exact_log_odds(mean: float) -> float:
    with decimal.localcontext(decimal.Context(prec=60)):
        p = decimal.Decimal(mean).exp()
        return float((p / (1 - p)).ln())


@pytest.mark.parametrize("other", [-0.5, -1e-12, -50.0])
@pytest.mark.parametrize("mean", MEANS)
def test_log_odds_keep_their_digits(mean, other):
    pc, pr, one, two = column(mean, other, 1, 1)
    losses, chosen, rejected = orpo_loss(pc.requires_grad_(), pr.requires_grad_(), one, two, lam=1)
    losses.sum().backward()
    assert chosen.item() == pytest.approx(exact_log_odds(mean), rel=1e-12, abs=1e-12)
    assert rejected.item() == pytest.approx(exact_log_odds(other), rel=1e-12, abs=1e-12)
    for x in (losses, pc.grad, pr.grad):
        assert x is not None
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("certain", [0, 1])
def test_a_probability_rounded_to_one_has_a_finite_loss_and_gradient(certain, dtype):
    logps = [torch.tensor([-0.5], dtype=dtype), torch.tensor([-0.5], dtype=dtype)]
    logps[certain] = torch.zeros(1, dtype=dtype)
    one = torch.ones(1, dtype=dtype)
    pc, pr = (x.requires_grad_() for x in logps)
    losses = orpo_loss(pc, pr, one, one, lam=1.0).losses
    losses.sum().backward()
    for x in (losses, pc.grad, pr.grad):
        assert x is not None
        assert torch.isfinite(x).all()


def test_prompts_can_be_imitated_too(build):
    """Nats per token of prompt (behind its first token) and chosen completion together."""
    policy = build("llama")
    orpo = ORPO(policy, torch.optim.AdamW, lam=0.0, prompt_nll=True)
    sums, counts = by_loop(policy, PAIRS)
    texts = [PromptTree(0, "", tree.prompt[:1], (tree.prompt[1:],)) for tree in PAIRS[::2]]
    (first, third), _ = by_loop(policy, texts)
    prompts = torch.stack([first, torch.zeros_like(first), third])  # the second is one token long
    lengths = torch.tensor([len(tree.prompt) - 1 for tree in PAIRS])
    expected = -(sums[::2] + prompts) / (counts[::2] + lengths)
    with torch.no_grad():
        losses, _ = orpo.losses(collate(PAIRS))
        only_one_token, _ = orpo.losses(collate(PAIRS[1:2]))
    assert_close(losses, expected)
    assert_close(only_one_token, expected[1:2])


def test_a_sharded_policy_is_called_by_all_ranks(build, monkeypatch):
    """A rank without a prompt token to imitate calls it as often as one that has some."""
    policy, calls = build("llama"), []
    policy.layout = "flat"
    policy.backbone.register_forward_hook(lambda *_: calls.append(1))
    orpo = ORPO(policy, torch.optim.AdamW, lam=0.0, prompt_nll=True)
    wanted, _ = orpo.losses(collate(PAIRS[1:2]))
    assert len(calls) == 1
    monkeypatch.setattr("alignlab.objectives.orpo.is_sharded", lambda _: True)
    for some in (PAIRS[1:2], PAIRS[:1]):
        calls.clear()
        losses, _ = orpo.losses(collate(some))
        assert len(calls) == 2
        if some == PAIRS[1:2]:
            assert_close(losses, wanted)
