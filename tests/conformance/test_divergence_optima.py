"""Where objectives with other divergences, or with absolute rewards, end under noisy labels.

As in ``test_direct_optima``: the optimum of each, written down, against its minimised loss.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignlab.functional.divergences import (
    Alpha,
    ChiSquaredKL,
    Divergence,
    ForwardKL,
    JensenShannon,
)
from alignlab.objectives.apo import apo_loss
from alignlab.objectives.bco import bco_loss
from alignlab.objectives.exo import exo_loss
from alignlab.objectives.f_dpo import f_dpo_loss
from alignlab.objectives.nca import nca_loss
from alignlab.objectives.sppo import sppo_loss
from alignlab.worlds.enumerable import EnumerableWorld, divergence, random_world
from tests.conformance.preferences import population
from tests.conformance.test_direct_optima import (
    HALF,
    ending,
    root,
    sigma,
    taught,
    world_of,
)


def zero(rising: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Where ``rising``, elementwise, is 0, between -200 and 200."""
    low, high = torch.full_like(like, -200), torch.full_like(like, 200)
    for _ in range(60):
        middle = (low + high) / 2
        above = rising(middle) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return low


def normalised(logps_at: Callable[[Tensor], Tensor]) -> Tensor:
    """``logps_at(c)`` ``[P, S]`` for the ``c [P, 1]`` at which it sums to 1; rising in ``c``."""
    none = torch.zeros(2, 1, dtype=torch.float64)
    return logps_at(zero(lambda c: logps_at(c).logsumexp(1, keepdim=True), none))


INVERSES: list[tuple[Divergence, float, Callable[[Tensor], Tensor]]] = [
    # f'(e^t) = x solved for t; infinite beyond the largest x
    (ForwardKL(), 1.0, lambda x: -(1 - x).clamp(min=0).log()),
    (JensenShannon(), 1.0, lambda x: x - (2 - x.exp()).clamp(min=0).log()),
    (Alpha(0.5), 0.8, lambda x: -2 * (1 - x / 2).clamp(min=0).log()),
    (ChiSquaredKL(), 0.4, lambda x: zero(lambda t: t.exp() - 1 + t - x, x)),
]


@pytest.mark.parametrize(("kind", "beta", "inverse"), INVERSES, ids=lambda x: type(x).__name__)
def test_f_dpo_ends_where_the_reward_is_beta_times_the_divergences_slope(kind, beta, inverse):
    """The optimum of the reward less ``beta`` times the divergence, which is not pi*."""
    world, policy = world_of()
    expected = normalised(lambda c: world.ref_logps + inverse((world.rewards + c) / beta))
    logps = ending(
        world, policy, lambda pair, ref, _: f_dpo_loss(*pair, *ref, beta=beta, divergence=kind)
    )
    assert divergence(expected, logps) < 1e-6
    same_kl = world.optimum(world.beta_for_kl(world.kl(expected)))
    assert world.kl(expected) > 0.1
    assert divergence(same_kl.logps, expected) > 1e-4


def test_exo_ends_at_its_smoothed_labels_log_odds_times_how_sure_they_are() -> None:
    """Between two completions, ``beta h = (2 p - 1) log((1 - e) / e)``; DPO's is ``logit p``."""
    beta, e = 2.0, 1e-3
    world, policy = random_world(0, vocabulary=2, length=1, prompts=6)
    sure = 2 * torch.sigmoid(world.rewards[:, 0] - world.rewards[:, 1]) - 1
    h = sure * math.log((1 - e) / e) / beta
    expected = (world.ref_logps + torch.stack([h, torch.zeros_like(h)], 1)).log_softmax(1)
    logps = ending(
        world, policy, lambda pair, ref, _: exo_loss(*pair, *ref, beta=beta, label_smoothing=e)
    )
    assert divergence(expected, logps) < 1e-6
    assert world.kl(expected) > 0.1


def shares(world: EnumerableWorld) -> tuple[Tensor, Tensor]:
    """How often each completion is chosen and rejected, ``[P, S]`` each."""
    chosen, rejected, weight = population(world)
    none = torch.zeros_like(world.rewards)
    return none.index_add(1, chosen, weight), none.index_add(1, rejected, weight)


def balanced(world: EnumerableWorld, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Log-probs where ``slope(log-ratio)`` of the mean loss is -mu pi: a minimum on the simplex.

    ``slope`` rises, and its own zeros have a total probability above 1, so that ``mu > 0``.
    """

    def at(c: Tensor) -> Tensor:
        ref = world.ref_logps
        return ref + zero(lambda t: slope(t) + (ref + t - c).exp(), ref)  # mu = exp(-c)

    return normalised(at)


def test_nca_ends_at_the_log_of_twice_the_win_rate() -> None:
    """Each ``s = beta ratio`` by itself would be ``log 2 W``: W sigma(-s) = sigma(s) / 2."""
    beta = 0.5
    world, policy = world_of()
    won, lost = shares(world)

    def slope(t: Tensor) -> Tensor:
        s = beta * t
        return won * (s.sigmoid() / 2 - (-s).sigmoid()) + lost * s.sigmoid() / 2

    alone = torch.log(2 * won / (won + lost))
    assert slope(alone / beta).abs().max() < 1e-12
    logps = ending(world, policy, lambda pair, ref, _: nca_loss(*pair, *ref, beta=beta))
    assert divergence(balanced(world, slope), logps) < 1e-6


@pytest.mark.parametrize("delta", [0.0, 0.4])
def test_bco_ends_at_the_log_odds_of_the_win_rate(delta: float) -> None:
    """Each ``s`` by itself would be ``delta + logit W``."""
    beta = 0.7
    world, policy = world_of()
    won, lost = shares(world)

    def slope(t: Tensor) -> Tensor:
        s = beta * t - delta
        return lost * s.sigmoid() - won * (-s).sigmoid()

    assert slope((delta + (won / lost).log()) / beta).abs().max() < 1e-12
    shift = torch.tensor(delta, dtype=torch.float64)
    logps = ending(world, policy, lambda pair, ref, _: bco_loss(*pair, *ref, shift, beta=beta))
    assert divergence(balanced(world, slope), logps) < 1e-6


@pytest.mark.parametrize("soft", [False, True])
def test_sppo_ends_at_the_win_rate(soft: bool) -> None:
    """Each ratio by itself would be ``(W - 1/2) / beta``; soft labels have the same mean."""
    beta = 0.3
    world, policy = world_of()
    won, lost = shares(world)
    chosen, rejected, _ = population(world)
    wins = torch.sigmoid(world.rewards[:, chosen] - world.rewards[:, rejected])

    def slope(t: Tensor) -> Tensor:
        return won * (t - 1 / (2 * beta)) + lost * (t + 1 / (2 * beta))

    assert slope((won / (won + lost) - 0.5) / beta).abs().max() < 1e-12
    chance = wins if soft else 1.0
    logps = ending(
        world, policy, lambda pair, ref, _: sppo_loss(*pair, *ref, beta=beta, chance=chance)
    )
    assert divergence(balanced(world, slope), logps) < 1e-6


@pytest.mark.parametrize("raise_chosen", [True, False])
def test_apo_takes_the_side_of_the_majority(raise_chosen: bool) -> None:
    """The arm that wins 6 times of 10 ends with everything; DPO would stop at 0.6 / 0.4."""
    odds = taught(
        lambda a, b: apo_loss(a, b, HALF, HALF, beta=1.0, raise_chosen=raise_chosen), chance=0.6
    )
    assert sigma(odds) > 0.999


@pytest.mark.parametrize("chance", [0.6, 0.9])
def test_apo_down_stops_before_that_where_beta_is_above_1(chance: float) -> None:
    """There, keeping the better arm from rising pays more than the last of the worse one."""
    beta = 3.0
    odds = taught(
        lambda a, b: apo_loss(a, b, HALF, HALF, beta=beta, raise_chosen=False), chance=chance
    )

    def falls(x: float) -> float:
        """How fast the mean loss falls as the log-odds rise."""
        up, down = (beta * math.log(2 * sigma(y)) for y in (x, -x))
        bend = [sigma(s) * sigma(-s) for s in (up, down, beta * x)]
        slopes = chance * sigma(-x), -(1 - chance) * sigma(x), 1 - 2 * chance
        return -sum(a * b for a, b in zip(bend, slopes, strict=True))

    assert odds == pytest.approx(root(falls), abs=1e-6)
    assert 0.5 < odds < 3
