"""Exact tables against numbers that are known."""

import math

import pytest
import torch

from alignlab.claims import exact
from alignlab.worlds.enumerable import random_world


def test_estimators() -> None:
    """Unbiased ones have the KL's mean, to rounding; k1's batches can be negative."""
    rows = list(exact.estimators())
    for row in rows:
        if row["estimator"] != "k2":
            assert row["mean"] == pytest.approx(row["kl"], rel=1e-9)
    near, far = rows[:4], rows[-4:]
    sds = {row["estimator"]: row["sd"] for row in near}
    # Near the reference k2 and k3 agree, k1's variance is twice the KL, as for Gaussians.
    assert sds["k3"] == pytest.approx(sds["k2"], rel=0.05)
    assert sds["k1"] ** 2 == pytest.approx(2 * near[0]["kl"], rel=0.05)
    assert sds["rao_blackwell"] < sds["k3"] < sds["k1"]
    negative = {row["estimator"]: row["negative_batches"] for row in near}
    # Mean m and deviation s of a batch's mean, s = sqrt(2 m / 64): m / s = 0.467, so 0.32.
    normal = 0.5 * math.erfc(math.sqrt(near[0]["kl"] * 64 / 2) / math.sqrt(2))
    assert negative["k1"] == pytest.approx(normal, abs=0.03)
    assert negative["rao_blackwell"] == negative["k3"] == 0
    assert far[1]["mean"] > 1.1 * far[1]["kl"]
    assert far[2]["sd"] > far[0]["sd"]  # k3 is heavy-tailed far from the reference


def test_best_of_n() -> None:
    """Without ties KL and win rate are those of atom-less rewards; with ties below them."""
    for row in exact.best_of_n():
        n = row["n"]
        assert row["bound"] == pytest.approx(math.log(n) - 1 + 1 / n)
        if row["ties"]:
            assert row["kl"] < 0.95 * row["bound"]
            assert row["win_rate"] < row["win_bound"]
        else:
            assert row["kl"] == pytest.approx(row["bound"], rel=1e-4)
            assert row["win_rate"] == pytest.approx(n / (n + 1), rel=1e-4)


def test_two_arms() -> None:
    rows = {(r["objective"], r["strength"]): r for r in exact.two_arms(steps=300)}
    assert rows["ipo", 1.0]["fixed_point"] == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert rows["ipo", 1.0]["preferred"] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-9)
    assert rows["dpo", 0.1]["preferred"] > 0.99


def test_memory() -> None:
    found = [(row["terabytes"], row["cards"]) for row in exact.memory()]
    assert found == [(pytest.approx(6.3), 79), (pytest.approx(7.0), 88)]


def test_the_controller_ends_at_its_target() -> None:
    for row in exact.controller():
        assert row["kl"] == pytest.approx(row["target"], rel=0.05)


def test_the_gap_of_sampled_labels() -> None:
    """DPO's minimum is the optimum of its beta, up to the noise of 65,536 labels."""
    dpo, ipo = exact.gap(seeds=1)
    assert (dpo["run"], dpo["objective"], dpo["pairs"]) == ("dpo-s0", "dpo", 65536)
    world, _ = random_world(0, vocabulary=5, length=2)
    best = world.optimum(0.5)
    assert dpo["kl"] == pytest.approx(best.kl, rel=0.05)
    assert dpo["reward"] == pytest.approx(best.reward, rel=0.05)
    assert 0.99 < dpo["share"] < 1
    assert dpo["optimum"] > dpo["reward"]
    # IPO's own optimum is another policy: the tilt by win rates over tau.
    chances = world.ref_logps[0].exp()
    wins = torch.sigmoid(world.rewards[0][:, None] - world.rewards[0]) @ chances
    own = (world.ref_logps + wins / 0.2).log_softmax(1)
    assert ipo["kl"] == pytest.approx(world.kl(own), rel=0.05)
    assert 0.9 < ipo["share"] < 1
