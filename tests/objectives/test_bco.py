"""BCO on pairs by hand; its shift is the mean reward of the whole steps before."""

from types import SimpleNamespace

import pytest
import torch

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.objectives.bco import BCO, bco_loss
from tests.objectives.direct import PAIRS, by_loop, column, moved


def test_value_and_slopes_worked_by_hand():
    """Rewards 0.5 and -0.5, delta 0.25: log(1 + e^-0.25) + log(1 + e^-0.75) = 0.962810."""
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    delta = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    losses, chosen, rejected = bco_loss(pc, pr, rc, rr, delta, beta=0.5)
    losses.backward()
    assert losses.item() == pytest.approx(0.962810, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert pc.grad is not None
    assert pr.grad is not None
    assert pc.grad.item() == pytest.approx(-0.218912, abs=1e-6)  # -0.5 sigma(-0.25)
    assert pr.grad.item() == pytest.approx(0.160411, abs=1e-6)  # 0.5 sigma(-0.75)
    assert delta.grad is None


@pytest.mark.parametrize(("decay", "weights"), [(1.0, (4, 6)), (0.5, (2, 6)), (0.0, (0, 6))])
def test_delta_is_the_mean_reward_of_the_steps_before(build, monkeypatch, decay, weights):
    """A step of two pairs, then one of three in two micro-batches: 4 rewards and 6."""
    bco = BCO(build("llama"), torch.optim.AdamW, beta=0.3, delta_decay=decay)
    strategy = SimpleNamespace(reduce=lambda x, reduce_op: x)
    trainer = SimpleNamespace(
        strategy=strategy, accumulate_grad_batches=2, world_size=1, _results={}
    )
    monkeypatch.setattr(BCO, "trainer", trainer)
    monkeypatch.setattr(BCO, "log", lambda *args, **rest: None)
    optimizer, means = torch.optim.SGD(bco.parameters()), []
    ref, _ = by_loop(bco.policy, PAIRS)
    for parts in ([PAIRS[:2]], [PAIRS[:2], PAIRS[2:]]):
        sums, _ = by_loop(moved(bco.policy), PAIRS)
        rows = 2 * sum(len(part) for part in parts)
        means.append(0.3 * float((sums - ref)[:rows].mean()))
        before = float(bco.delta)
        for part in parts:
            bco.training_step(collate(part), 0)
            assert float(bco.delta) == before  # of this step nothing is used yet
        bco.on_before_optimizer_step(optimizer)
    expected = sum(w * x for w, x in zip(weights, means, strict=True)) / sum(weights)
    assert abs(means[0] - means[1]) > 0.01
    assert float(bco.delta) == pytest.approx(expected, rel=1e-5)
    four = sums[::2], sums[1::2], ref[::2], ref[1::2]
    shifted = bco_loss(*four, torch.tensor(expected, dtype=torch.float64), beta=0.3)
    with torch.no_grad():
        losses, logged = bco.losses(collate(PAIRS))
    assert losses.tolist() == pytest.approx(shifted.losses.tolist(), rel=1e-5)
    assert float(logged["delta"]) == pytest.approx(expected, rel=1e-5)


def test_all_ranks_count_and_a_step_that_is_not_finite_does_not(build, monkeypatch):
    """Two pairs with rewards 1 and 0 here and a sum of 10 over two pairs there: 12 of 8 rewards.

    The callback NonFinite may skip a step and go on.
    """
    bco = BCO(build("llama"), torch.optim.AdamW)
    there = torch.tensor([10.0, 4.0])  # of each metric, too
    strategy = SimpleNamespace(reduce=lambda x, reduce_op: x + there.repeat(len(x) // 2))
    monkeypatch.setattr(BCO, "trainer", SimpleNamespace(strategy=strategy, _results={}))
    monkeypatch.setattr(BCO, "log", lambda *args, **rest: None)
    for chosen in (1.0, torch.nan):
        rewards = {"rewards/chosen": torch.tensor(chosen), "rewards/rejected": torch.tensor(0.0)}
        bco.log_step(rewards, 2)
        bco.on_before_optimizer_step(torch.optim.SGD(bco.parameters()))
        assert float(bco.delta) == 1.5


@pytest.mark.parametrize("setting", [{"beta": 0.0}, {"delta_decay": 1.5}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"BCO needs {name} .* Set model\.init_args\.{name}"):
        BCO(build("llama"), torch.optim.AdamW, **setting)
