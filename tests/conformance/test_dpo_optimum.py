"""DPO on preferences of a known reward ends at the exact optimum pi_ref exp(r / beta) / Z."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alignlab.objectives.dpo import dpo_loss
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, divergence, random_world
from tests.conformance.preferences import Pairs, minimise, population


def sampled(world: EnumerableWorld, pairs: int, seed: int) -> Pairs:
    """The same with ``pairs`` drawn and labelled pairs: how often each came up."""
    chosen, rejected, weight = population(world)
    counts = np.random.default_rng(seed).multinomial(pairs, weight.flatten().numpy())
    return chosen, rejected, torch.from_numpy(counts / pairs).view_as(weight)


def fit(
    parameters: Iterable[nn.Parameter],
    logps_of: Callable[[], Tensor],
    world: EnumerableWorld,
    pairs: Pairs,
    beta: float,
) -> Tensor:
    """Minimise the weighted DPO loss of the policy with log-probs ``logps_of() [P, S]``."""
    chosen, rejected, weight = pairs
    ref = world.ref_logps

    def loss_of() -> Tensor:
        logps = logps_of()
        losses, _, _ = dpo_loss(
            logps[:, chosen], logps[:, rejected], ref[:, chosen], ref[:, rejected], beta=beta
        )
        return (weight * losses).sum()

    minimise(parameters, loss_of)
    return logps_of().detach()


@pytest.mark.parametrize(
    ("vocabulary", "length", "prompts", "beta"),
    [(4, 3, 2, 0.5), (8, 2, 2, 0.3), (5, 3, 2, 0.5)],
)
def test_population_loss_tabular(vocabulary: int, length: int, prompts: int, beta: float) -> None:
    world, policy = random_world(0, vocabulary, length, prompts)
    best = world.optimum(beta)
    assert divergence(best.logps, world.ref_logps) > 0.5  # it has some way to go
    logps = fit(policy.parameters(), policy.sequence_logps, world, population(world), beta)
    assert divergence(best.logps, logps) < 1e-6
    # The optimum of another beta is another policy: dropping beta would show.
    assert divergence(world.optimum(1.2 * beta).logps, logps) > 1e-3


def asymptotic_error(world: EnumerableWorld, beta: float) -> float:
    """n times the expected KL(pi*||pi) of the maximum likelihood policy from n pairs, n large.

    tr(F^-1 H) / 2 with F the information of one pair on the completions' log-probs and H that of
    one sample of pi* (one prompt). The null space, a constant added to all, is the same in both.
    """
    chosen, rejected, weight = population(world)
    chance = torch.sigmoid(world.rewards[0, chosen] - world.rewards[0, rejected])
    edges = torch.zeros(2 * [world.rewards.shape[1]], dtype=torch.float64)
    edges[chosen, rejected] = beta**2 * weight[0] * chance * (1 - chance)
    edges = edges + edges.T
    information = torch.diag(edges.sum(1)) - edges
    best = world.optimum(beta).logps[0].exp()
    fisher = torch.diag(best) - torch.outer(best, best)
    return float((torch.linalg.pinv(information, hermitian=True) @ fisher).trace() / 2)


def test_sampled_labels_and_their_error_falls_as_one_over_n() -> None:
    """57 completions; eight label samples at each size."""
    beta, sizes, seeds = 0.5, [2**16, 2**18, 2**20], range(8)
    world, reference = random_world(0, vocabulary=8, length=2)
    best, start = world.optimum(beta), reference.logits.detach().clone()
    errors = []
    for size in sizes:
        divergences = []
        for seed in seeds:
            policy = TabularPolicy(world.completions, start)
            pairs = sampled(world, size, seed)
            logps = fit(policy.parameters(), policy.sequence_logps, world, pairs, beta)
            divergences.append(divergence(best.logps, logps))
        assert max(divergences) < 0.01
        errors.append(sum(divergences) / len(seeds))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    scaled = np.multiply(sizes, errors) / asymptotic_error(world, beta)
    print(f"KL(pi*||pi) {errors} at {sizes} pairs, slope {slope:.3f}, of theory {scaled}")
    assert -1.15 < slope < -0.85
    assert (np.abs(scaled - 1) < 0.3).all()


def test_population_loss_transformer(tiny_world) -> None:
    beta = 0.5
    policy, trees, world = tiny_world(vocabulary=4, length=3, prompts=2)
    assert torch.allclose(world.ref_logps.exp().sum(1), torch.ones(2, dtype=torch.float64))
    best = world.optimum(beta)
    assert divergence(best.logps, world.ref_logps) > 0.4
    logps = fit(
        policy.parameters(), lambda: policy(trees).logps.view(2, -1), world, population(world), beta
    )
    assert divergence(best.logps, logps) < 0.01
