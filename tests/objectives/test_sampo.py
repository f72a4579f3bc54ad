"""SamPO by hand; which tokens are kept, how often, and that the rest of a batch has no say."""

import math

import pytest
import torch

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.functional import uniform
from alignlab.objectives.sampo import SamPO, kept_tokens, sampo_loss
from tests.objectives.direct import PAIRS, moved, tokens_by_loop


def test_value_worked_by_hand():
    """Kept log-ratios 0.5 + 0.25 and -0.75 + 0.5: 0.75 and -0.25; at beta 2 the margin is 2."""
    logps = [[-0.5, -1.0, -0.75], [-1.75, -1.0, -0.5], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]]
    kept = [[True, False, True], [True, False, True]]
    given = [torch.tensor([row], dtype=torch.float64) for row in logps]
    losses, chosen, rejected = sampo_loss(*given, *(torch.tensor([row]) for row in kept), beta=2.0)
    assert losses.item() == pytest.approx(math.log1p(math.exp(-2.0)))
    assert (chosen.item(), rejected.item()) == (1.5, -0.5)


def test_kept_are_as_many_of_both_and_only_tokens_that_count():
    mask = torch.tensor([[1, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    noise = torch.tensor(
        [[0.9, 0.0, 0.3, 0.5, 0.1], [0.9, 0.8, 0.1, 0.1, 0.1],
         [0.1, 0.9, 0.1, 0.1, 0.1], [0.5, 0.4, 0.3, 0.2, 0.6]]
    )  # fmt: skip
    assert kept_tokens(mask, noise).long().tolist() == [
        [0, 0, 1, 0, 1], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]
    ]  # fmt: skip


def test_every_token_is_kept_as_often_and_every_two_together():
    """Two of four: each with a half, each pair of them with a sixth; 6,000 draws, 4 errors."""
    rows = 6000
    mask = torch.tensor([[True] * 4, [True, True, False, False]]).repeat(rows, 1)
    ids = torch.arange(rows).repeat_interleave(2)
    noise = uniform(0, 0, ids[:, None], torch.zeros_like(ids)[:, None], torch.arange(4))
    kept = kept_tokens(mask, noise)[::2].double()
    together = kept.T @ kept / rows
    for i in range(4):
        for j in range(i):
            assert together[i, j] == pytest.approx(1 / 6, abs=4 * math.sqrt(5 / 36 / rows))


def test_a_batch_is_the_sum_over_kept_tokens_by_a_loop(build):
    """The row, the step and the seed say which tokens; the rest of the batch does not."""
    policy = build("llama")
    ref = tokens_by_loop(policy, PAIRS)
    seeds = [SamPO(policy, torch.optim.AdamW, beta=0.3, seed=k) for k in range(6)]
    objective = seeds[0]
    now = tokens_by_loop(moved(policy), PAIRS)
    losses = objective.losses(collate(PAIRS))[0].tolist()
    ratios = [[a - b for a, b in zip(*both, strict=True)] for both in zip(now, ref, strict=True)]
    # The first pair has 3 tokens and 1, the second 2 and 3, the third 2 and 2.
    some = [
        [[x] for x in ratios[0]],
        [[ratios[3][k] for k in range(3) if k != left] for left in range(3)],
        [ratios[4]],
    ]
    rest, sign = [ratios[1], ratios[2], ratios[5]], [1, -1, 1]
    for i, loss in enumerate(losses):
        possible = [
            math.log1p(math.exp(-0.3 * sign[i] * (sum(drawn) - sum(rest[i])))) for drawn in some[i]
        ]
        assert min(abs(loss - value) for value in possible) < 1e-6
        alone = collate(PAIRS[i : i + 1])
        assert objective.losses(alone)[0].item() == pytest.approx(loss, abs=1e-12)
    found = {each.losses(collate(PAIRS[:1]))[0].item() for each in seeds}
    assert len(found) > 1


def test_each_step_has_other_subsets(build, monkeypatch):
    objective = SamPO(build("llama"), torch.optim.AdamW, beta=0.3)
    moved(objective.policy)
    found = []
    for step in range(6):
        monkeypatch.setattr(SamPO, "global_step", step)
        found.append([objective.losses(collate(PAIRS[:1]))[0].item() for _ in range(2)])
    assert all(first == second for first, second in found)
    assert len({first for first, _ in found}) > 1


def test_before_training_the_loss_is_log_2(build):
    objective = SamPO(build("llama"), torch.optim.AdamW)
    assert objective.losses(collate(PAIRS))[0].tolist() == pytest.approx([math.log(2)] * 3)


def test_extreme_log_ratios_are_finite():
    far, zero = torch.tensor([[200.0], [-200.0]]).requires_grad_(), torch.zeros(2, 1)
    kept = torch.ones(2, 1, dtype=torch.bool)
    losses = sampo_loss(far, -far, zero, zero, kept, kept, beta=1.0).losses
    losses.sum().backward()
    assert losses.tolist() == [0.0, 400.0]
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_a_beta_of_0_names_its_key(build):
    with pytest.raises(ConfigError, match=r"SamPO needs beta > 0.*model\.init_args\.beta"):
        SamPO(build("llama"), torch.optim.AdamW, beta=0.0)
