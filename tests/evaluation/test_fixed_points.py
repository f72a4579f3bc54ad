"""Own optima: by hand for two completions, and against each objective's minimised loss."""

import inspect
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignlab.evaluation.fixed_points import (
    AIMS,
    GOLD,
    LEARNED,
    NoFixedPoint,
    Samples,
    own_optima,
    tilted,
)
from alignlab.evaluation.oracle import optimum_at_kl
from alignlab.objectives.base import PairLoss
from alignlab.objectives.cpo import cpo_loss
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.ipo import ipo_loss
from alignlab.objectives.lndpo import lndpo_loss
from alignlab.objectives.rdpo import rdpo_loss
from alignlab.objectives.robust_dpo import robust_dpo_loss
from alignlab.objectives.simpo import simpo_loss
from alignlab.worlds.enumerable import EnumerableWorld, divergence
from tests.conformance.test_direct_optima import Two, ending, world_of
from tests.evaluation.worlds import World

Loss = Callable[[Two, Two, Two], PairLoss]


def two() -> Samples:
    """Two completions, of chances 1/4 and 3/4; the first is preferred with chance 0.9."""
    return Samples(
        log_base=np.log([[0.25, 0.75]]),
        rewards=np.array([[math.log(9), 0.0]]),
        log_ref=np.log([[0.25, 0.75]]),
        lengths=np.array([[1.0, 3.0]]),
        proxy=np.array([[0.0, 1.0]]),
    )


def gap(objective: str, **settings: Any) -> float:
    """By how much the tilt of the first completion of ``two`` exceeds that of the second."""
    aim, samples = AIMS[objective], two()
    tilt = aim.tilt(samples, {**aim.reads, **settings})
    return float(tilt[0, 0] - tilt[0, 1])


def test_dpo_by_hand() -> None:
    """exp(log(9) / 2) = 3 turns 1/4 and 3/4 into equal chances."""
    found = tilted(two(), AIMS["DPO"].tilt(two(), {**AIMS["DPO"].reads, "beta": 2.0}), 2.0)
    assert found.reward[0] == pytest.approx(math.log(9) / 2)
    assert found.kl[0] == pytest.approx((math.log(2) + math.log(2 / 3)) / 2)
    assert found.ess[0] == pytest.approx(2)


def test_tilts_by_hand() -> None:
    """W is 0.25 * 0.5 + 0.75 * 0.9 = 0.8 of the first, 0.25 * 0.1 + 0.75 * 0.5 = 0.4."""
    assert two().wins == pytest.approx(np.array([[0.8, 0.4]]))
    assert gap("IPO", tau=0.2, per_token=False) == pytest.approx(2)
    assert gap("RDPO", beta=2.0, alpha=0.5) == pytest.approx((math.log(9) + 0.5 * 2) / 2)
    assert gap("DPO", beta=0.5, label_smoothing=0.1) == pytest.approx(2 * math.log(0.82 / 0.18))
    assert gap("RobustDPO", beta=2.0, label_smoothing=0.05) == pytest.approx(math.log(17) / 2)
    assert gap("CPO", beta=2.0, lam=0.0) == pytest.approx(math.log(9) / 2 + math.log(3))
    assert gap("ORPO", lam=0.0) == pytest.approx(math.log(6))
    assert gap("PPO", kl_coef=0.5) == pytest.approx(2 * math.log(9))
    assert gap("RLOO", kl_coef=0.5, reward=LEARNED) == pytest.approx(-2)
    assert gap("OnlineDPO", beta=0.5, scale=2.0) == pytest.approx(4 * math.log(9))
    assert gap("RLOO", kl_coef=2.0, n=4) == pytest.approx(1.5 * math.log(4 / 3))
    assert gap("RLOO", kl_coef=2.0, n=4, reward=LEARNED) == pytest.approx(1.5 * math.log(1 / 4))
    assert gap("GRPO", kl_coef=0.5, kl_in="reward") == pytest.approx(2 * math.log(9))
    assert gap("BetaDPO", beta=0.5, rho=1.0) == pytest.approx(2 * math.log(9))
    assert gap("QRPO", beta=0.5) == pytest.approx(2 * (1 / 4 - 1))
    assert gap("DDORM", beta=0.5) == pytest.approx(-2)
    assert gap("AStarPO", beta=0.5, reward=GOLD) == pytest.approx(2 * math.log(9))


def test_a_tilt_per_token_by_hand() -> None:
    """With pi = (q, 1 - q): log(q / .25) / 1 - log((1 - q) / .75) / 3 is log(9) / 2 at the end."""
    own = two()
    tilt = AIMS["LNDPO"].tilt(own, {"beta": 2.0})
    chance = np.exp(own.log_ref + tilt)[0]
    assert chance.sum() == pytest.approx(1)
    means = np.log(chance / [0.25, 0.75]) / [1, 3]
    assert means[0] - means[1] == pytest.approx(math.log(9) / 2)


@pytest.mark.parametrize(
    ("kind", "init_args", "slope"),
    [
        ("ReverseKL", {}, np.log),
        ("ForwardKL", {}, lambda u: 1 - 1 / u),
        ("JensenShannon", {}, lambda u: np.log(2 * u / (1 + u))),
        ("Alpha", {"alpha": 0.3}, lambda u: (1 - u**-0.3) / 0.3),
        ("ChiSquaredKL", {}, lambda u: u - 1 + np.log(u)),
    ],
)
def test_other_divergences_have_the_slope_of_their_definition(
    kind: str, init_args: dict[str, Any], slope: Callable[[Any], Any]
) -> None:
    """``beta f'(pi / pi_ref) - r`` is a constant of the prompt, and pi sums to 1."""
    samples = Samples.of(World(3, 40, seed=0).exact_pool())
    divergence = {"class_path": f"x.{kind}", "init_args": init_args}
    at = {"beta": 2.0, "divergence": divergence, "max_margin": None}
    ratio = np.exp(AIMS["FDPO"].tilt(samples, at))
    assert (np.exp(samples.log_base) * ratio).sum(1) == pytest.approx(np.ones(3))
    left = 2.0 * slope(ratio) - samples.rewards
    assert np.ptp(left, axis=1) == pytest.approx(np.zeros(3), abs=1e-9)
    assert ratio.std() > 0.1


@pytest.mark.parametrize("objective", ["SPPO", "NCA"])
def test_win_rates_are_met_up_to_the_multiplier(objective: str) -> None:
    """The mean loss of a completion has the same slope per probability everywhere: -mu.

    SPPO's slope in the log-ratio t is t - (W - 1/2) / beta, NCA's W (3 sigma(beta t) / 2 - 1)
    where it wins and (1 - W) sigma(beta t) / 2 where it loses.
    """
    samples, beta = Samples.of(World(3, 40, seed=0).exact_pool()), 0.5
    tilt = AIMS[objective].tilt(samples, {"beta": beta})
    tilt = tilt + np.zeros_like(samples.rewards)
    assert np.exp(samples.log_base + tilt).sum(1) == pytest.approx(np.ones(3))
    said, wins = 1 / (1 + np.exp(-beta * tilt)), samples.wins
    slope = tilt - (wins - 0.5) / beta
    if objective == "NCA":
        slope = wins * (1.5 * said - 1) + (1 - wins) * said / 2
    multiplier = -slope / np.exp(tilt)
    assert (multiplier > 0).all()
    assert np.ptp(multiplier, axis=1) == pytest.approx(np.zeros(3), abs=1e-8)
    assert tilt.std() > 0.1


def test_nca_without_strength_keeps_what_wins_more_than_half() -> None:
    """For beta t = 0 the slope above is W / 2 - 1 / 4 less: the ratio is proportional to W - 1/2.

    Ratios without the multiplier, (2 W) ** (1 / beta), are then larger than a float.
    """
    samples = Samples.of(World(3, 40, seed=0).exact_pool())
    chances = np.exp(samples.log_base)
    wanted = np.maximum(samples.wins - 0.5, 0)
    wanted /= (chances * wanted).sum(1, keepdims=True)
    found = np.exp(AIMS["NCA"].tilt(samples, {"beta": 5e-4}))
    assert (chances * found).sum(1) == pytest.approx(np.ones(3))
    assert found == pytest.approx(wanted, abs=0.02)
    assert wanted.max() > 1.5


def exact(world: EnumerableWorld) -> Samples:
    """Every completion once, with its chance."""
    return Samples(
        log_base=world.ref_logps.numpy(),
        rewards=world.rewards.numpy(),
        log_ref=world.ref_logps.numpy(),
        lengths=world.completions.lengths.expand_as(world.rewards).numpy().astype(float),
    )


CASES: list[tuple[str, dict[str, Any], Loss]] = [
    (
        "DPO",
        {"beta": 0.5, "label_smoothing": 0.1},
        lambda p, r, _: dpo_loss(*p, *r, beta=0.5, label_smoothing=0.1),
    ),
    (
        "RobustDPO",
        {"beta": 0.8, "label_smoothing": 0.01},
        lambda p, r, _: robust_dpo_loss(*p, *r, beta=0.8, label_smoothing=0.01),
    ),
    ("IPO", {"tau": 1.0}, lambda p, r, n: ipo_loss(*p, *r, tau=1.0, lengths=n)),
    ("SimPO", {"beta": 1.5}, lambda p, _, n: simpo_loss(*p, *n, beta=1.5, gamma=0.0)),
]
SLOW: list[tuple[str, dict[str, Any], Loss]] = [  # tests/conformance has their formulas, too
    ("DPO", {"beta": 0.7}, lambda p, r, _: dpo_loss(*p, *r, beta=0.7)),
    ("IPO", {"tau": 0.2, "per_token": False}, lambda p, r, _: ipo_loss(*p, *r, tau=0.2)),
    (
        "RDPO",
        {"beta": 0.5, "alpha": 0.4},
        lambda p, r, n: rdpo_loss(*p, *r, *n, beta=0.5, alpha=0.4),
    ),
    ("LNDPO", {"beta": 1.5}, lambda p, r, n: lndpo_loss(*p, *r, *n, beta=1.5)),
    ("CPO", {"beta": 0.7, "lam": 0.0}, lambda p, _, n: cpo_loss(*p, beta=0.7, lam=0.0)),
]


@pytest.mark.parametrize(
    ("objective", "settings", "loss"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_a_tilt_is_where_the_loss_is_least(
    objective: str, settings: dict[str, Any], loss: Loss
) -> None:
    world, policy = world_of()
    aim = AIMS[objective]
    tilt = torch.from_numpy(aim.tilt(exact(world), {**aim.reads, **settings}))
    expected: Tensor = (world.ref_logps + tilt).log_softmax(1)
    assert divergence(expected, world.ref_logps) > 1e-3
    assert divergence(expected, ending(world, policy, loss)) < 1e-6


def test_a_correction_for_flips_that_are_not_there_has_no_end() -> None:
    """The second's chance against a sample is 0.4; corrected by 0.3 it is below 0."""
    with pytest.raises(NoFixedPoint, match="without end"):
        gap("RobustDPO", beta=1.0, label_smoothing=0.3)


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.0])
def test_dpos_own_optimum_is_the_optimum_at_every_budget(budget: float) -> None:
    pool = World(4, 2000, seed=3).exact_pool()
    best = optimum_at_kl(pool, budget)
    (own,) = own_optima(Samples.of(pool), "DPO", {"beta": 123.0}, [budget])
    assert best is not None
    assert own is not None
    assert own.kl.mean() == pytest.approx(budget, abs=1e-7)
    assert own.reward == pytest.approx(best.reward, abs=1e-6)
    assert own.beta == pytest.approx(best.beta, rel=1e-5)


def test_an_optimum_of_something_else_lies_below_it() -> None:
    samples = Samples.of(World(4, 2000, seed=3, levels=12).exact_pool())
    for objective, settings in (("IPO", {"per_token": False}), ("DPO", {"label_smoothing": 0.2})):
        (own,) = own_optima(samples, objective, settings, [1.0])
        (best,) = own_optima(samples, "DPO", {}, [1.0])
        assert own is not None
        assert best is not None
        assert own.kl.mean() == pytest.approx(1.0)
        assert own.reward.mean() < best.reward.mean() - 1e-4


def test_a_pool_of_samples_finds_what_the_enumeration_says() -> None:
    """Two proposals; the error is that of 8,000 samples."""
    world = World(4, 1000, seed=3, levels=6)
    pool = world.pool(4000, seed=1, others=[world.tilted(1.0)], m=4000)
    for objective, settings in (("IPO", {"per_token": False}), ("DPO", {"label_smoothing": 0.2})):
        (drawn,) = own_optima(Samples.of(pool), objective, settings, [0.7])
        (listed,) = own_optima(Samples.of(world.exact_pool()), objective, settings, [0.7])
        assert drawn is not None
        assert listed is not None
        assert drawn.reward.mean() == pytest.approx(listed.reward.mean(), abs=0.02)


def test_one_policy_is_mixed_with_the_reference_up_to_its_kl() -> None:
    """Of two equal completions of which one always wins: W is 3/4 and 1/4, so pi has 3/4."""
    samples = Samples(
        log_base=np.full((1, 200), -math.log(200)),
        rewards=np.repeat([[50.0, 0.0]], 100, axis=0).reshape(1, 200),
        log_ref=np.zeros((1, 200)),
        lengths=np.ones((1, 200)),
    )
    whole = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    half, all_of_it, beyond = own_optima(
        samples, "ORPO", {"lam": 0.0}, [whole / 2, whole * (1 - 1e-9), whole * 1.01]
    )
    assert half is not None
    assert all_of_it is not None
    assert half.reward[0] == pytest.approx((25 + 37.5) / 2)
    assert all_of_it.reward[0] == pytest.approx(37.5)
    assert beyond is None


def test_what_the_pool_cannot_say_is_left_out() -> None:
    """Forty samples have an effective size below 50; KL 9 is beyond log(200)."""
    few = Samples.of(World(6, 40, seed=3).exact_pool())
    assert own_optima(few, "DPO", {}, [0.5]) == [None]
    assert own_optima(Samples.of(World(4, 200, seed=3).exact_pool()), "DPO", {}, [9.0]) == [None]


@pytest.mark.parametrize(
    ("objective", "settings", "why"),
    [
        ("DPO", {"nll_coef": 0.1}, "likelihood"),
        ("SimPO", {"gamma_beta_ratio": 0.2}, "gamma"),
        ("SimPO", {"gamma": 0.0, "alpha": 0.25}, "alpha"),
        ("BetaDPO", {}, "dropped"),
        ("GRPO", {}, "per-token"),
        ("CPO", {}, "imitation"),
        ("ORPO", {}, "odds-ratio"),
        ("OnlineDPO", {"labels": "argmax"}, "without end"),
        ("PPO", {"ptx_coef": 0.5}, "likelihood"),
        ("PPO", {"kl_in": "loss"}, "per-token"),
        ("PPO", {"reward": LEARNED}, "no learned reward"),
        ("RDPO", {}, "lengths"),
        ("KTO", {}, "more often than not"),
        ("FDPO", {"max_margin": 4.0}, "max_margin"),
        ("FDPO", {"divergence": {"class_path": "mine.Mine"}}, "this divergence"),
        ("AStarPO", {"value_beta": 3.0, "reward": GOLD}, "value_beta"),
        ("Mine", {}, "no formula is known"),
    ],
)
def test_an_objective_without_an_own_optimum_says_why(
    objective: str, settings: dict[str, Any], why: str
) -> None:
    samples = Samples.of(World(4, 200, seed=3).exact_pool())
    with pytest.raises(NoFixedPoint, match=why):
        own_optima(samples, objective, settings, [0.5])


FILES = {
    "RobustDPO": "robust_dpo",
    "OnlineDPO": "online_dpo",
    "FDPO": "f_dpo",
    "DDORM": "ddo_rm",
    "AStarPO": "astar_po",
    "TRDPO": "tr_dpo",
    "BetaDPO": "beta_dpo",
    "REINFORCEPlusPlus": "reinforce_pp",
}


@pytest.mark.parametrize("name", AIMS)
def test_settings_have_the_defaults_of_their_classes(name: str) -> None:
    module = import_module(f"alignlab.objectives.{FILES.get(name, name.lower())}")
    signature = inspect.signature(getattr(module, name)).parameters
    aim = AIMS[name]
    assert not aim.strength or aim.strength in signature
    for setting, default in aim.reads.items():
        known = signature.get(setting)
        if known is not None and known.default is not inspect.Parameter.empty:
            assert known.default == default, setting
