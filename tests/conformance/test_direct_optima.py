"""Where direct objectives end: the optimum of each, written down, against its minimised loss.

Preferences are those of a known reward, all pairs with their exact chances. DPO and some of its
relatives end at pi_ref exp(r / beta) / Z, others at an optimum of their own; some have none.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignlab.objectives.base import PairLoss
from alignlab.objectives.cpo import cpo_loss
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.hinge import hinge_loss
from alignlab.objectives.ipo import ipo_loss
from alignlab.objectives.kto import kto_loss
from alignlab.objectives.lndpo import lndpo_loss
from alignlab.objectives.orpo import orpo_loss
from alignlab.objectives.rdpo import rdpo_loss
from alignlab.objectives.robust_dpo import robust_dpo_loss
from alignlab.objectives.simpo import simpo_loss
from alignlab.objectives.slic import slic_loss
from alignlab.worlds.enumerable import (
    EnumerableWorld,
    TabularPolicy,
    all_completions,
    divergence,
    random_world,
)
from tests.conformance.preferences import minimise, population

# A loss of the policy's and the reference's log-probs and lengths, each (chosen, rejected).
Two = tuple[Tensor, Tensor]
Loss = Callable[[Two, Two, Two], PairLoss]


def world_of(seed: int = 0) -> tuple[EnumerableWorld, TabularPolicy]:
    """Two prompts, 15 completions of one to three tokens."""
    return random_world(seed, vocabulary=3, length=3, prompts=2)


def ending(
    world: EnumerableWorld, policy: TabularPolicy, loss: Loss, flipped: float = 0.0
) -> Tensor:
    """``[P, S]`` log-probs of the policy that minimises the mean of ``loss``."""
    chosen, rejected, weight = population(world, flipped)
    ref, lengths = world.ref_logps, world.completions.lengths
    both = lengths[chosen], lengths[rejected]

    def loss_of() -> Tensor:
        logps = policy.sequence_logps()
        pair = logps[:, chosen], logps[:, rejected]
        return (weight * loss(pair, (ref[:, chosen], ref[:, rejected]), both).losses).sum()

    minimise(policy.parameters(), loss_of)
    return policy.sequence_logps().detach()


def normalised(logps_at: Callable[[Tensor], Tensor]) -> Tensor:
    """``logps_at(c)`` ``[P, S]`` for the ``c [P, 1]`` at which it sums to 1; rising in ``c``."""
    low = torch.full((2, 1), -200.0, dtype=torch.float64)
    high = -low
    for _ in range(200):
        middle = (low + high) / 2
        above = logps_at(middle).logsumexp(1, keepdim=True) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return logps_at(low)


def test_robust_dpo_finds_the_optimum_behind_flipped_labels_and_dpo_and_cdpo_do_not() -> None:
    beta, rate = 0.5, 0.2
    world, start = world_of()
    best = world.optimum(beta).logps

    def ends(label_smoothing: float, robust: bool) -> float:
        policy = TabularPolicy(world.completions, start.logits)
        loss = robust_dpo_loss if robust else dpo_loss

        def smoothed(pair: Two, ref: Two, lengths: Two) -> PairLoss:
            return loss(*pair, *ref, beta=beta, label_smoothing=label_smoothing)

        return divergence(best, ending(world, policy, smoothed, flipped=rate))

    robust, plain, conservative = ends(rate, True), ends(0.0, False), ends(rate, False)
    print(f"KL(pi*||pi): robust {robust:.1e}, DPO {plain:.3f}, cDPO {conservative:.3f}")
    assert robust < 1e-6
    assert 0.03 < plain < conservative


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_ipo_ends_where_the_paper_says(tau: float) -> None:
    """pi_ref exp(P(y beats the reference) / tau) / Z: Eq. 8 with the identity for Psi."""
    world, policy = world_of()
    beats = torch.sigmoid(world.rewards[:, :, None] - world.rewards[:, None, :])
    chance = (beats * world.ref_logps.exp()[:, None, :]).sum(2)
    expected = (world.ref_logps + chance / tau).log_softmax(1)
    logps = ending(world, policy, lambda pair, ref, _: ipo_loss(*pair, *ref, tau=tau))
    assert divergence(expected, logps) < 1e-6
    assert divergence(expected, world.ref_logps) > 1e-3


def test_ipo_per_token_has_that_margin_in_every_token() -> None:
    tau = 1.0
    world, policy = world_of()
    beats = torch.sigmoid(world.rewards[:, :, None] - world.rewards[:, None, :])
    chance = (beats * world.ref_logps.exp()[:, None, :]).sum(2)
    lengths = world.completions.lengths
    expected = normalised(lambda c: world.ref_logps + lengths * (chance / tau + c))
    logps = ending(world, policy, lambda pair, ref, n: ipo_loss(*pair, *ref, tau=tau, lengths=n))
    assert divergence(expected, logps) < 1e-6


def test_rdpo_ends_at_the_optimum_of_reward_minus_a_price_per_token() -> None:
    beta, alpha = 0.5, 0.4
    world, policy = world_of()
    lengths = world.completions.lengths
    expected = (world.ref_logps + (world.rewards - alpha * lengths) / beta).log_softmax(1)
    logps = ending(
        world, policy, lambda pair, ref, n: rdpo_loss(*pair, *ref, *n, beta=beta, alpha=alpha)
    )
    assert divergence(expected, logps) < 1e-6
    assert (logps.exp() * lengths).sum() < (world.optimum(beta).logps.exp() * lengths).sum()


def test_lndpo_ends_with_the_reward_in_every_token() -> None:
    beta = 1.5
    world, policy = world_of()
    lengths = world.completions.lengths
    expected = normalised(lambda c: world.ref_logps + lengths * (world.rewards / beta + c))
    logps = ending(world, policy, lambda pair, ref, n: lndpo_loss(*pair, *ref, *n, beta=beta))
    assert divergence(expected, logps) < 1e-6


def test_simpo_without_a_margin_has_mean_log_probs_that_are_the_reward() -> None:
    beta = 1.5
    world, policy = world_of()
    lengths = world.completions.lengths
    expected = normalised(lambda c: lengths * (world.rewards / beta + c))
    logps = ending(world, policy, lambda pair, _, n: simpo_loss(*pair, *n, beta=beta, gamma=0.0))
    assert divergence(expected, logps) < 1e-6


def test_cpo_without_imitation_is_the_optimum_of_a_uniform_reference() -> None:
    beta = 0.7
    world, policy = world_of()
    logps = ending(world, policy, lambda pair, _, n: cpo_loss(*pair, beta=beta, lam=0.0))
    assert divergence((world.rewards / beta).log_softmax(1), logps) < 1e-6


def test_orpo_without_contrast_imitates_chosen_completions_by_their_tokens() -> None:
    """The mean log-prob weighs a completion by 1 / length, so pi is chosen / length, normalised."""
    world, policy = world_of()
    chosen, _, weight = population(world)
    often = torch.zeros_like(world.rewards).index_add(1, chosen, weight)
    expected = (often / world.completions.lengths).log().log_softmax(1)
    logps = ending(world, policy, lambda pair, _, n: orpo_loss(*pair, *n, lam=0.0))
    assert divergence(expected, logps) < 1e-6


def bandit() -> TabularPolicy:
    """Two completions of one token each, equally likely."""
    return TabularPolicy(all_completions(2, 1), torch.zeros(1, 1, 2, dtype=torch.float64))


def log_odds_of(policy: TabularPolicy) -> float:
    first, second = policy.sequence_logps().detach()[0].tolist()
    return float(first - second)


def taught(loss: Callable[[Tensor, Tensor], PairLoss], chance: float) -> float:
    """The log-odds of a bandit's first arm, which is preferred with ``chance``, at the minimum."""
    policy = bandit()

    def loss_of() -> Tensor:
        first, second = policy.sequence_logps().T
        told = chance * loss(first, second).losses + (1 - chance) * loss(second, first).losses
        return told.sum()

    minimise(policy.parameters(), loss_of)
    return log_odds_of(policy)


def root(slope: Callable[[float], float]) -> float:
    """Where ``slope``, falling, is 0."""
    low, high = -50.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


def sigma(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).sigmoid())


HALF = torch.full((1,), 0.5, dtype=torch.float64).log()
ONE = torch.ones(1, dtype=torch.float64)


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("lengths", [None, (ONE, ONE)])
def test_ipo_is_sigma_of_1_over_2_tau_on_an_arm_that_always_wins(tau, lengths) -> None:
    odds = taught(lambda a, b: ipo_loss(a, b, HALF, HALF, tau=tau, lengths=lengths), chance=1.0)
    assert odds == pytest.approx(1 / (2 * tau), abs=1e-7)
    assert sigma(odds) == pytest.approx(1 / (1 + math.exp(-1 / (2 * tau))), abs=1e-7)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_has_no_end_there(beta: float) -> None:
    """Gradient descent adds log 2 to beta times the log-odds with each doubling of its steps."""
    policy, odds = bandit(), []
    optimizer = torch.optim.SGD(policy.parameters(), lr=4 / beta**2)
    for step in range(1, 161):
        optimizer.zero_grad()
        first, second = policy.sequence_logps().T
        dpo_loss(first, second, HALF, HALF, beta=beta).losses.sum().backward()
        optimizer.step()
        if step in (40, 80, 160):
            odds.append(beta * log_odds_of(policy))
    print(f"beta times log-odds after 40, 80, 160 steps: {odds}")
    assert odds[0] > 4
    assert odds[1] - odds[0] == pytest.approx(math.log(2), abs=0.1)
    assert odds[2] - odds[1] == pytest.approx(math.log(2), abs=0.1)


@pytest.mark.parametrize(("flipped", "smoothing"), [(0.0, 0.1), (0.2, 0.2), (0.3, 0.1)])
def test_cdpo_stops_where_its_smoothed_label_is_met(flipped: float, smoothing: float) -> None:
    """sigma(beta h) = (1 - e) (1 - f) + e f on an arm that wins but for the flips."""
    met = (1 - smoothing) * (1 - flipped) + smoothing * flipped
    odds = taught(
        lambda a, b: dpo_loss(a, b, HALF, HALF, beta=0.5, label_smoothing=smoothing),
        chance=1 - flipped,
    )
    assert sigma(0.5 * odds) == pytest.approx(met, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_simpos_margin_is_won_from_a_label_that_is_never_sure(gamma: float) -> None:
    """The slope in the reward difference m: p sigma(gamma - m) - (1 - p) sigma(gamma + m) = 0."""
    p, beta = 0.8, 2.0
    odds = taught(lambda a, b: simpo_loss(a, b, ONE, ONE, beta=beta, gamma=gamma), chance=p)
    m = root(lambda m: p * sigma(gamma - m) - (1 - p) * sigma(gamma + m))
    assert beta * odds == pytest.approx(m, abs=1e-6)
    without = math.log(p / (1 - p))
    assert m > without + 0.5 if gamma else m == pytest.approx(without)


@pytest.mark.parametrize("lam", [0.0, 0.5, 5.0, 1e5])
def test_orpo_stands_between_imitation_and_half_of_it(lam: float) -> None:
    """Log-odds of two one-token arms differ by twice x: (p - sigma(x)) + 2 lam (p - sigma(2x))."""
    p = 0.8
    odds = taught(lambda a, b: orpo_loss(a, b, ONE, ONE, lam=lam), chance=p)
    x = root(lambda x: p - sigma(x) + 2 * lam * (p - sigma(2 * x)))
    assert odds == pytest.approx(x, abs=1e-6)
    if lam in (0.0, 1e5):
        assert sigma(x if lam == 0 else 2 * x) == pytest.approx(p, abs=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1e5])
def test_cpo_stands_between_preference_and_imitation(lam: float) -> None:
    """The slope is beta (p - sigma(beta x)) + lam (p - sigma(x))."""
    p, beta = 0.8, 0.5
    odds = taught(lambda a, b: cpo_loss(a, b, beta=beta, lam=lam), chance=p)
    x = root(lambda x: beta * (p - sigma(beta * x)) + lam * (p - sigma(x)))
    assert odds == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("chance", [0.55, 0.8, 0.99])
def test_margins_of_hinge_and_slic_do_not_depend_on_how_sure_the_label_is(chance: float) -> None:
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    first, second = x.sigmoid().log(), (-x).sigmoid().log()

    def least(loss: Callable[[Tensor, Tensor], PairLoss]) -> float:
        told = chance * loss(first, second).losses + (1 - chance) * loss(second, first).losses
        return float(x[told.argmin()])

    assert least(lambda a, b: hinge_loss(a, b, HALF, HALF, beta=0.5)) == pytest.approx(2.0)
    assert least(lambda a, b: slic_loss(a, b, delta=1.5, lam=0.0)) == pytest.approx(1.5)
    imitated = least(lambda a, b: slic_loss(a, b, delta=1.5, lam=100.0))
    assert sigma(imitated) == pytest.approx(chance, abs=0.01)


def test_kto_takes_the_side_of_the_majority() -> None:
    """An arm that is desirable 6 times of 10 ends with everything; DPO would stop at 0.6 / 0.4."""
    policy, likes = bandit(), torch.tensor([0.6, 0.4], dtype=torch.float64)
    yes, no = torch.tensor([True]), torch.tensor([False])

    def loss_of() -> Tensor:
        logps, ref = policy.sequence_logps()[0], HALF.expand(2)
        kl = torch.zeros((), dtype=torch.float64)
        liked, _ = kto_loss(logps, ref, yes, kl, beta=1.0)
        disliked, _ = kto_loss(logps, ref, no, kl, beta=1.0)
        return (likes * liked + (1 - likes) * disliked).sum()

    minimise(policy.parameters(), loss_of)
    assert sigma(log_odds_of(policy)) > 0.999
    dpos = taught(lambda a, b: dpo_loss(a, b, HALF, HALF, beta=1.0), chance=0.6)
    assert sigma(dpos) == pytest.approx(0.6)
