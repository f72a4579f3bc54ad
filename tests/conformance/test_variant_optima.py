"""Where DPO's variants end: the optimum of each, written down, against its minimised loss.

Where there is no closed form, it is the solution of the equations that its slopes, derived by hand
and computed in NumPy, add up to 0.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import root as solve
from scipy.special import expit
from torch import Tensor

from alignlab.models.sharding import mix_weights
from alignlab.objectives.base import PairLoss
from alignlab.objectives.beta_dpo import MOMENTUM, beta_dpo_loss
from alignlab.objectives.cal_dpo import cal_dpo_loss
from alignlab.objectives.discopop import discopop_loss
from alignlab.objectives.dpop import dpop_loss
from alignlab.objectives.ld_dpo import ld_dpo_loss
from alignlab.objectives.sampo import sampo_loss
from alignlab.objectives.simpo import simpo_loss
from alignlab.objectives.tr_dpo import tr_dpo_loss
from alignlab.objectives.wpo import wpo_loss
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, divergence, random_world
from tests.conformance.preferences import minimise, population
from tests.conformance.test_direct_optima import (
    HALF,
    Two,
    bandit,
    ending,
    log_odds_of,
    normalised,
    root,
    sigma,
    taught,
    world_of,
)

Array = NDArray[np.float64]
# The slopes of a pair's loss by the log-ratios of chosen and rejected.
Slopes = Callable[[Array, Array], tuple[Array, Array]]


def stationary(world: EnumerableWorld, slopes: Slopes) -> Tensor:
    """``[P, S]`` log-probs at which the slopes of every completion are balanced.

    By the log-probs of completions the mean loss has slopes G, and by a policy's own free scores
    G - pi sum(G). One of these equations follows from the others; the sum of chances replaces it.
    """
    chosen, rejected, weight = (x.numpy() for x in population(world))
    found = []
    for p, start in enumerate(world.optimum(1.0).logps.numpy()):
        ref = world.ref_logps[p].numpy()

        def balance(logps: Array, p: int = p, ref: Array = ref) -> Array:
            ratios, g = logps - ref, np.zeros_like(logps)
            for index, slope in zip(
                (chosen, rejected), slopes(ratios[chosen], ratios[rejected]), strict=True
            ):
                np.add.at(g, index, weight[p] * slope)
            left = g - np.exp(logps) * g.sum()
            left[-1] = np.exp(logps).sum() - 1
            return left

        solution = solve(balance, start, tol=1e-13)
        assert np.abs(balance(solution.x)).max() < 1e-10
        found.append(torch.from_numpy(solution.x))
    return torch.stack(found)


def test_wpo_ends_at_the_optimum_whatever_its_weights_are() -> None:
    """A pair has the same weight under both labels; each round has that of its own policy."""
    beta = 0.7
    world, policy = world_of()
    chosen, rejected, _ = population(world)
    for _ in range(2):
        squares = (2 * policy.next_logps()).logsumexp(-1).masked_fill(~world.completions.mask, 0)
        log_weights = (policy.token_logps() - squares).sum(-1) / world.completions.lengths
        assert log_weights.exp().max() > 2 * log_weights.exp().min()
        both = log_weights[:, chosen], log_weights[:, rejected]

        def loss(pair: Two, ref: Two, _: Two, both: Two = both) -> PairLoss:
            return wpo_loss(*pair, *ref, *both, beta=beta)

        logps = ending(world, policy, loss)
        assert divergence(world.optimum(beta).logps, logps) < 1e-6


def test_dpop_ends_the_nearer_to_its_reference_the_larger_lambda_is() -> None:
    """With noisy labels every completion is chosen at times, and must not fall; 0 is DPO."""
    beta = 0.7
    kls = []
    for lam in (0.0, 1.0, 5.0):
        world, policy = world_of()

        def loss(pair: Two, ref: Two, _: Two, lam: float = lam) -> PairLoss:
            return dpop_loss(*pair, *ref, beta=beta, lam=lam)

        kls.append(world.kl(ending(world, policy, loss)))
    print(f"KL at lambda 0, 1 and 5: {kls}")
    assert kls[0] == pytest.approx(world.optimum(beta).kl, abs=1e-6)
    assert kls[1] < 0.6 * kls[0]
    assert kls[2] < 0.2 * kls[0]


@pytest.mark.parametrize(("chance", "lam"), [(0.7, 0.5), (0.7, 2.0), (0.9, 2.0), (0.9, 10.0)])
def test_dpop_of_two_completions_balances_what_one_gains_and_the_other_loses(chance, lam) -> None:
    """The first has the chance q, so that their log-ratios are log 2q and log 2(1 - q)."""
    beta = 0.7

    def slope(odds: float) -> float:
        q = sigma(odds)
        kept = sigma(-beta * odds)
        lost = sigma(-beta * ((1 + lam) * math.log(2 * (1 - q)) - math.log(2 * q)))
        gain = chance * kept * (1 / q + 1 / (1 - q))
        return gain - (1 - chance) * lost * ((1 + lam) / (1 - q) + 1 / q)

    odds = taught(lambda a, b: dpop_loss(a, b, HALF, HALF, beta=beta, lam=lam), chance)
    assert odds == pytest.approx(root(slope), abs=1e-6)
    assert 0 < odds < math.log(chance / (1 - chance)) / beta


def test_dpop_does_not_move_from_a_lambda_on() -> None:
    """(4 p - 2) / (1 - p), which is 8 / 3 for a chance of 0.7: there is a minimum at the start."""

    def loss(odds: float, lam: float) -> float:
        first, second = torch.tensor([odds, 0.0], dtype=torch.float64).log_softmax(0)[:, None]
        one = dpop_loss(first, second, HALF, HALF, beta=0.7, lam=lam).losses
        other = dpop_loss(second, first, HALF, HALF, beta=0.7, lam=lam).losses
        return float(0.7 * one + 0.3 * other)

    for lam, stays in ((2.6, False), (2.7, True)):
        assert (loss(1e-3, lam) > loss(0.0, lam)) == stays
        assert loss(-1e-3, lam) > loss(0.0, lam)


@pytest.mark.parametrize("cal_coef", [0.0, 0.5, 1.0])
def test_cal_dpo_ends_between_dpo_at_beta_1_and_a_share_of_wins(cal_coef: float) -> None:
    beta = 0.5
    half = 1 / (2 * beta)

    def slopes(w: Array, l: Array) -> tuple[Array, Array]:  # noqa: E741
        g = -expit(l - w)
        return g + 2 * cal_coef * (w - half), -g + 2 * cal_coef * (l + half)

    world, policy = world_of()
    logps = ending(
        world, policy, lambda pair, ref, _: cal_dpo_loss(*pair, *ref, beta=beta, cal_coef=cal_coef)
    )
    assert divergence(stationary(world, slopes), logps) < 1e-6
    assert (divergence(world.optimum(1.0).logps, logps) < 1e-6) == (cal_coef == 0)


def test_discopop_ends_beyond_dpo() -> None:
    beta, tau = 0.7, 0.5

    def slopes(w: Array, l: Array) -> tuple[Array, Array]:  # noqa: E741
        x = beta * (w - l)
        m, e = expit(x / tau), np.exp(-x)
        g = beta * (m * (1 - m) / tau * (e - np.log1p(e)) - (1 - m) * expit(-x) - m * e)
        return g, -g

    world, policy = world_of()
    logps = ending(
        world, policy, lambda pair, ref, _: discopop_loss(*pair, *ref, beta=beta, tau=tau)
    )
    assert divergence(stationary(world, slopes), logps) < 1e-6
    print(f"KL {world.kl(logps):.3f}, DPO's {world.optimum(beta).kl:.3f}")
    assert world.kl(logps) > 1.05 * world.optimum(beta).kl


@pytest.mark.parametrize("start", [1.0, 0.0])
def test_discopop_with_a_narrow_blend_has_a_minimum_on_either_side(start: float) -> None:
    """Of two completions. From the wrong side or from 0 it does not reach the right one.

    There e^-x (1 + e^-x) = (1 - p) / p: at a chance of 0.7, e^-x is (sqrt(1 + 12 / 7) - 1) / 2.
    """
    policy = bandit()
    with torch.no_grad():
        policy.logits[0, 0, 0] += start

    def loss_of() -> Tensor:
        first, second = policy.sequence_logps().T
        one = discopop_loss(first, second, HALF, HALF, beta=1.0, tau=0.02).losses
        other = discopop_loss(second, first, HALF, HALF, beta=1.0, tau=0.02).losses
        return (0.7 * one + 0.3 * other).sum()

    minimise(policy.parameters(), loss_of)
    right = -math.log((math.sqrt(1 + 12 / 7) - 1) / 2)
    if start:
        assert log_odds_of(policy) == pytest.approx(right, abs=1e-6)
    else:
        assert log_odds_of(policy) < 0


@pytest.mark.parametrize("alpha", [0.25, -0.1])
def test_alphapo_without_a_margin_has_bent_mean_log_probs_that_are_the_reward(alpha: float) -> None:
    """(1 - e^(-alpha mean)) / alpha = r / beta + c, solved for the mean."""
    beta = 1.5
    world, policy = world_of()
    lengths = world.completions.lengths

    def logps_at(c: Tensor) -> Tensor:
        bent = 1 - alpha * (world.rewards / beta + c)
        return lengths * (-bent.clamp(min=1e-300).log() / alpha)

    logps = ending(
        world,
        policy,
        lambda pair, _, n: simpo_loss(*pair, *n, beta=beta, gamma=0.0, alpha=alpha),
    )
    assert divergence(normalised(logps_at), logps) < 1e-6
    plain = normalised(lambda c: lengths * (world.rewards / beta + c))
    assert divergence(plain, logps) > 1e-3


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_tr_dpo_has_no_end_each_move_of_its_reference_adds_to_the_reward(alpha: float) -> None:
    """After n moves, each at the minimum, it is the optimum at beta / (1 + n alpha).

    Of completions of one token, whose log-probs are the weights but for a constant.
    """
    beta = 2.0
    world, policy = random_world(0, vocabulary=6, length=1, prompts=2)
    reference = TabularPolicy(world.completions, policy.logits)
    for moves in range(4):
        now = replace(world, ref_logps=reference.sequence_logps().detach())
        logps = ending(now, policy, lambda pair, ref, _: tr_dpo_loss(*pair, *ref, beta=beta))
        expected = world.optimum(beta / (1 + moves * alpha))
        assert divergence(expected.logps, logps) < 1e-6
        assert world.kl(logps) == pytest.approx(expected.kl, abs=1e-5)
        mix_weights(reference, policy, alpha)


def test_beta_dpo_ends_at_dpos_optimum_once_its_margins_are_as_usual() -> None:
    """All pairs kept. There the mean margin is constant, so that the running mean reaches it."""
    beta, alpha = 0.7, 0.6
    world, policy = world_of()
    one = torch.ones((), dtype=torch.float64)
    logps = ending(
        world, policy, lambda pair, ref, _: beta_dpo_loss(*pair, *ref, one, one, beta=beta)
    )
    assert divergence(world.optimum(beta).logps, logps) < 1e-6
    chosen, rejected, weight = population(world)
    ratios = logps - world.ref_logps
    mean = float((weight * beta * (ratios[:, chosen] - ratios[:, rejected])).sum())
    usual = 0.0
    for _ in range(200):
        usual += (1 - MOMENTUM) * (mean - usual)
    assert mean > 0.1
    assert 1 + alpha * (mean - usual) == pytest.approx(1, abs=1e-8)


Tokens = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Ladder:
    """The completions 0, 10 and 11, so that two are longer than the other by a token."""

    def __init__(self) -> None:
        self.world, self.policy = random_world(1, vocabulary=2, length=2, prompts=1)
        assert self.world.completions.tokens.tolist() == [[0, 0], [1, 0], [1, 1]]
        self.ref = self.policy.token_logps().detach()
        self.r = self.world.rewards[0].tolist()

    def ending(self, loss: Tokens) -> Tensor:
        """Log-probs at the minimum of ``loss`` of chosen and rejected: tokens ``[B, T]``, mask."""
        chosen, rejected, weight = population(self.world)
        mask = self.world.completions.mask

        def loss_of() -> Tensor:
            logps = self.policy.token_logps()
            mine = torch.stack([logps[0, chosen], logps[0, rejected]])
            theirs = torch.stack([self.ref[0, chosen], self.ref[0, rejected]])
            return (weight[0] * loss(mine, theirs, mask[chosen], mask[rejected])).sum()

        minimise(self.policy.parameters(), loss_of)
        return self.policy.sequence_logps().detach()

    def solution(self, beta: float, margins: Callable[..., list[tuple[float, ...]]]) -> Tensor:
        """Log-probs at which the slopes by both log-odds a (1 over 0) and b (10 over 11) are 0.

        ``margins(x, first, second)`` lists, of the pair of 1x and 0, its share, log-ratio, and the
        slopes of that by a and b. ``first`` has the log-ratios of first tokens and their slopes by
        a, ``second`` those of second tokens and theirs by b.
        """
        ref = self.ref[0].exp().numpy()
        q_ref, s_ref = ref[1, 0], (ref[1, 1], ref[2, 1])  # of a 1; then of a 0 and a 1
        chance = [q_ref * s_ref[0], q_ref * s_ref[1]]

        def logps_of(ab: Array) -> tuple[Array, Array]:
            q, s = expit(ab[0]), expit(ab[1])
            return np.array([q, 1 - q]), np.array([s, 1 - s])

        def balance(ab: Array) -> Array:
            q, s = logps_of(ab)
            first = [(np.log(q[0] / q_ref), q[1]), (np.log(q[1] / (1 - q_ref)), -q[0])]
            second = [(np.log(s[0] / s_ref[0]), s[1]), (np.log(s[1] / s_ref[1]), -s[0])]
            whole = second[0][0] - second[1][0]  # 10 and 11 are as long, and begin alike
            p = expit(self.r[1] - self.r[2])
            left = np.array([0.0, chance[0] * chance[1] * (expit(beta * whole) - p)])
            for x in (0, 1):
                p = expit(self.r[1 + x] - self.r[0])
                for share, ratio, by_a, by_b in margins(x, first, second):
                    missed = chance[x] * (1 - q_ref) * share * (expit(beta * ratio) - p)
                    left += missed * np.array([by_a, by_b])
            return left

        found = solve(balance, np.zeros(2), tol=1e-13).x
        assert np.abs(balance(found)).max() < 1e-12
        q, s = logps_of(found)
        return torch.tensor([[q[1], q[0] * s[0], q[0] * s[1]]], dtype=torch.float64).log()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_ld_dpo_counts_the_second_token_of_the_longer_completion_by_alpha(alpha: float) -> None:
    """At 0 second tokens are decided by equal lengths alone; at 1 it is DPO's optimum."""
    beta, ladder = 0.5, Ladder()

    def loss(mine: Tensor, theirs: Tensor, longer: Tensor, other: Tensor) -> Tensor:
        ratios, masks = mine - theirs, torch.stack([longer, other])
        shorter = masks.sum(-1).min(0).values
        tails = (ratios * (masks.cumsum(-1) > shorter[:, None])).sum(-1)
        sums = (*mine.sum(-1), *theirs.sum(-1))
        return ld_dpo_loss(*sums, *tails, beta=beta, alpha=alpha).losses

    def margins(x, first, second):  # both first tokens, and alpha of the second
        return [(1.0, first[0][0] - first[1][0] + alpha * second[x][0], 1.0, alpha * second[x][1])]

    logps = ladder.ending(loss)
    assert divergence(ladder.solution(beta, margins), logps) < 1e-6
    best = ladder.world.optimum(beta).logps
    assert (divergence(best, logps) < 1e-6) == (alpha == 1)
    if alpha == 0:  # a closed form: the mean chance to win of both longer ones, by the reference
        chances = ladder.ref.sum(-1).exp()[0, 1:]
        wins = sum(
            c * expit(r - ladder.r[0]) for c, r in zip(chances.tolist(), ladder.r[1:], strict=True)
        )
        mean = wins / float(chances.sum())
        odds = logps[0, 1:].logsumexp(0) - logps[0, 0] - chances.sum().logit()
        assert float(beta * odds) == pytest.approx(np.log(mean / (1 - mean)), abs=1e-6)


def test_sampo_counts_each_token_of_the_longer_completion_half_of_the_time() -> None:
    """Its mean loss over both subsets of 10 and 11 beside 0, each with a half."""
    beta, ladder = 0.5, Ladder()

    def loss(mine: Tensor, theirs: Tensor, longer: Tensor, other: Tensor) -> Tensor:
        uneven = longer.sum(-1) != other.sum(-1)
        total = torch.zeros(len(mine[0]), dtype=mine.dtype)
        for token in (0, 1):
            only = torch.arange(2) == token
            kept = [
                torch.where((uneven & (mask.sum(-1) == 2))[:, None], mask & only, mask)
                for mask in (longer, other)
            ]
            total = total + sampo_loss(*mine, *theirs, *kept, beta=beta).losses / 2
        return total

    def margins(x, first, second):  # the first token or the second, less the other one's first
        return [
            (0.5, first[0][0] - first[1][0], 1.0, 0.0),
            (0.5, second[x][0] - first[1][0], -first[1][1], second[x][1]),
        ]

    logps = ladder.ending(loss)
    assert divergence(ladder.solution(beta, margins), logps) < 1e-6
    assert divergence(ladder.world.optimum(beta).logps, logps) > 1e-3
