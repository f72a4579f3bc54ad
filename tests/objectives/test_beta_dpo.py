"""beta-DPO by hand: the step's beta, which pairs are kept, and what belongs to a whole step."""

import math
from types import SimpleNamespace

import pytest
import torch

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.functional import uniform
from alignlab.objectives.beta_dpo import BetaDPO, beta_dpo_loss, kept_pairs
from tests.objectives.direct import PAIRS, by_loop, column, moved


def test_value_worked_by_hand():
    """Log-ratios 1 and -1, so 2 at beta 0.5 times 1.5: log(1 + e^-1.5) = 0.201413, times 2."""
    given = column(-1, -4, -2, -3, 1.5, 2.0)
    for x in given:
        x.requires_grad_()
    losses, chosen, rejected = beta_dpo_loss(*given, beta=0.5)
    losses.sum().backward()
    assert losses.item() == pytest.approx(0.402827, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)
    assert given[0].grad.item() == pytest.approx(-2 * 0.75 * 0.182426, abs=1e-6)
    assert given[4].grad is None
    assert given[5].grad is None


def test_pairs_are_drawn_without_replacement_by_their_density():
    """One of margins 0, 1 and 3 at mean 1, deviation 1: e^-1/2, 1 and e^-2, over their sum."""
    draws = 4000
    margins = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    ids = torch.arange(draws)
    noise = torch.stack([uniform(0, 0, ids, torch.full_like(ids, k), 0) for k in range(3)], 1)
    one = torch.tensor(1.0, dtype=torch.float64)
    kept = [kept_pairs(margins, one, one, row, 0.34) for row in noise]
    often = torch.stack(kept).double().mean(0).tolist()
    density = [math.exp(-0.5), 1.0, math.exp(-2.0)]
    for found, wanted in zip(often, density, strict=True):
        assert found == pytest.approx(wanted / sum(density), abs=4 * 0.5 / math.sqrt(draws))
    counts = {int(kept_pairs(margins, one, one, row, 0.7).sum()) for row in noise[:50]}
    assert counts == {2}


def test_where_nothing_has_moved_the_draw_is_even():
    """No deviation yet: all pairs are as usual."""
    zero, noise = torch.zeros((), dtype=torch.float64), torch.tensor([0.2, 0.9, 0.5]).double()
    kept = kept_pairs(torch.zeros(3, dtype=torch.float64), zero, zero, noise, 0.67)
    assert kept.tolist() == [False, True, True]


def margins_of(objective: BetaDPO) -> list[float]:
    """At ``beta``, by a loop, of a policy that is then moved."""
    ref, _ = by_loop(objective.policy, PAIRS)
    now, _ = by_loop(moved(objective.policy), PAIRS)
    ratios = (now - ref).tolist()
    return [objective.beta * (w - m) for w, m in zip(ratios[::2], ratios[1::2], strict=True)]


def test_the_step_decides_on_beta_and_remembers_its_margins(build):
    """All pairs kept: beta times 1 + alpha (mean - usual), the usual a tenth of the way there."""
    objective = BetaDPO(build("llama"), torch.optim.AdamW, beta=0.3, alpha=0.5, rho=1.0)
    margins = margins_of(objective)
    losses = objective.losses(collate(PAIRS))[0].tolist()
    mean = sum(margins) / 3
    deviation = math.sqrt(sum((x - mean) ** 2 for x in margins) / 3)
    assert float(objective.usual) == pytest.approx(0.1 * mean)
    assert float(objective.spread) == pytest.approx(0.1 * deviation)
    factor = 1 + 0.5 * 0.9 * mean
    expected = [math.log1p(math.exp(-factor * x)) for x in margins]
    assert losses == pytest.approx(expected, rel=1e-6)
    assert {"usual", "spread"} <= objective.kept_names()
    held_out = objective.eval().losses(collate(PAIRS))[0].tolist()
    assert held_out == pytest.approx([math.log1p(math.exp(-x)) for x in margins], rel=1e-6)
    assert float(objective.usual) == pytest.approx(0.1 * mean)


def test_pairs_that_are_left_out_cost_nothing_and_the_others_more(build):
    objective = BetaDPO(build("llama"), torch.optim.AdamW, beta=0.3, alpha=0.0, rho=0.7)
    margins = margins_of(objective)
    losses = objective.losses(collate(PAIRS))[0].tolist()
    assert losses.count(0.0) == 1
    for loss, margin in zip(losses, margins, strict=True):
        assert loss == 0 or loss == pytest.approx(1.5 * math.log1p(math.exp(-margin)), rel=1e-6)


def test_two_ranks_share_one_step(build, monkeypatch):
    """Each rank has one part of the pairs, and the sum over ranks has the other's margins."""
    objective = BetaDPO(build("llama"), torch.optim.AdamW, beta=0.3, alpha=0.5, rho=0.7)
    margins_of(objective)
    whole = objective.losses(collate(PAIRS))[0].tolist()
    usual = float(objective.usual)
    parts = [(0, PAIRS[:1]), (1, PAIRS[1:])]
    given: dict[int, torch.Tensor] = {}

    def run(first: int, trees: list, others: torch.Tensor) -> list[float]:
        objective.usual.zero_(), objective.spread.zero_()
        reduce = lambda x, reduce_op: given.setdefault(first, x.clone()) + others  # noqa: E731
        trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=reduce), global_step=0)
        monkeypatch.setattr(BetaDPO, "trainer", trainer)
        batch = collate(trees)
        batch.step, batch.first = PAIRS, first
        return objective.losses(batch)[0].tolist()

    for first, trees in parts:  # what each gives to the other
        run(first, trees, torch.zeros(3, dtype=torch.float64))
    found = [run(first, trees, given[1 - first]) for first, trees in parts]
    assert found[0] + found[1] == pytest.approx(whole, rel=1e-12)
    assert float(objective.usual) == pytest.approx(usual, rel=1e-12)


def test_a_beta_that_would_be_negative_stops_the_run(build):
    objective = BetaDPO(build("llama"), torch.optim.AdamW, beta=0.3, alpha=0.5)
    objective.usual.fill_(40.0)
    with pytest.raises(ConfigError, match=r"beta has become -.*Lower model\.init_args\.alpha"):
        objective.losses(collate(PAIRS))


def test_micro_batches_are_refused(build, monkeypatch):
    loader = SimpleNamespace(batch_size=4, micro_batches=2)
    trainer = SimpleNamespace(train_dataloader=loader, accumulate_grad_batches=2)
    monkeypatch.setattr(BetaDPO, "trainer", trainer)
    with pytest.raises(ConfigError, match=r"data\.init_args\.micro_batch_size to null"):
        BetaDPO(build("llama"), torch.optim.AdamW).on_train_start()


def test_extreme_log_ratios_are_finite():
    far, zero, one = torch.tensor([200.0, -200.0]).requires_grad_(), torch.zeros(2), torch.ones(2)
    losses = beta_dpo_loss(far, -far, zero, zero, one[0], one, beta=1.0).losses
    losses.sum().backward()
    assert losses.tolist() == [0.0, 400.0]
    assert far.grad is not None
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("setting", [{"alpha": -0.1}, {"rho": 0.0}, {"beta": 0.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"BetaDPO needs {name} .*model\.init_args\.{name}"):
        BetaDPO(build("llama"), torch.optim.AdamW, **setting)
