import math
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.worlds.enumerable import (
    EnumerableWorld,
    TabularPolicy,
    all_completions,
    divergence,
    prompt_tokens,
    random_world,
)


def coin(*rewards: float) -> EnumerableWorld:
    """One prompt, completions "end" and "1" with chances 3/4 and 1/4."""
    completions = all_completions(2, 1)
    ref = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()
    return EnumerableWorld(completions, ref, torch.tensor([rewards], dtype=torch.float64))


def test_completions_are_listed_once() -> None:
    world = all_completions(3, 2)
    assert world.tokens.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert world.lengths.tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert world.open_prefixes == 3
    assert world.prefix[:, 0].tolist() == [0] * 7
    assert world.prefix[:, 1].tolist() == [3, 1, 1, 1, 2, 2, 2]
    assert world.prefix[:, 2].tolist() == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("vocabulary", "length", "count"), [(2, 1, 2), (4, 3, 40), (8, 4, 2801)])
def test_number_of_completions(vocabulary: int, length: int, count: int) -> None:
    assert len(all_completions(vocabulary, length).tokens) == count


@pytest.mark.parametrize("size", [(1, 3), (3, 0), (9, 4)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="<= 4096, got"):
        all_completions(*size)


def test_tabular_policy_is_a_distribution_equal_to_a_loop() -> None:
    world, policy = random_world(0, vocabulary=3, length=3, prompts=2)
    assert_close(policy.sequence_logps().exp().sum(1), torch.ones(2, dtype=torch.float64))
    states: list[tuple[int, ...]] = [
        prefix for t in range(3) for prefix in product((1, 2), repeat=t)
    ]
    tables = policy.logits.softmax(-1).tolist()
    for p in range(2):
        for s, (row, length) in enumerate(
            zip(world.completions.tokens.tolist(), world.completions.lengths.tolist(), strict=True)
        ):
            chance = math.prod(
                tables[p][states.index(tuple(row[:t]))][row[t]] for t in range(length)
            )
            assert policy.sequence_logps()[p, s].exp().item() == pytest.approx(chance, rel=1e-12)
    assert_close(policy.token_logps().sum(-1), world.ref_logps)
    chosen = policy.next_logps().exp().sum(-1)
    assert_close(chosen, torch.ones_like(chosen))


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_optimum_worked_by_hand(beta: float) -> None:
    """A reward of beta log 3 for "1" makes the odds even: KL = log(2/3)/2 + log(2)/2."""
    best = coin(0.0, beta * math.log(3)).optimum(beta)
    assert_close(best.logps.exp(), torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert best.reward == pytest.approx(beta * math.log(3) / 2)
    assert best.kl == pytest.approx(math.log(4 / 3) / 2)


def test_optimum_beats_its_neighbours_and_satisfies_its_identity() -> None:
    """E*[r] / beta - log Z = KL*, and no perturbed policy has a larger objective."""
    world, _ = random_world(1, vocabulary=3, length=3, prompts=3)
    beta = 0.3
    best = world.optimum(beta)
    log_z = (world.ref_logps + world.rewards / beta).logsumexp(1).mean().item()
    assert best.kl == pytest.approx(best.reward / beta - log_z, abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = torch.randn(best.logps.shape, generator=generator, dtype=torch.float64)
        other = (best.logps + 0.1 * noise).log_softmax(1)
        gap = best.reward - beta * best.kl - (world.reward(other) - beta * world.kl(other))
        # The objective falls short by exactly beta * KL(other || pi*).
        assert gap == pytest.approx(beta * divergence(other, best.logps), abs=1e-12)


def test_means_are_over_prompts() -> None:
    world, _ = random_world(2, vocabulary=3, length=2, prompts=2)
    logps = world.optimum(0.5).logps
    alone = [
        EnumerableWorld(world.completions, world.ref_logps[p : p + 1], world.rewards[p : p + 1])
        for p in range(2)
    ]
    for measure in ("reward", "kl"):
        parts = [getattr(one, measure)(logps[p : p + 1]) for p, one in enumerate(alone)]
        assert getattr(world, measure)(logps) == pytest.approx(sum(parts) / 2)


@pytest.mark.parametrize("budget", [0.01, 0.5, 1.5])
def test_beta_for_a_budget(budget: float) -> None:
    world, _ = random_world(3, vocabulary=4, length=3, prompts=2)
    assert world.optimum(world.beta_for_kl(budget)).kl == pytest.approx(budget, abs=1e-10)


@pytest.mark.parametrize("budget", [0.0, math.log(4) + 0.01])
def test_a_budget_nobody_can_spend_is_refused(budget: float) -> None:
    with pytest.raises(ConfigError, match="outside this world's range"):
        coin(0.0, 1.0).beta_for_kl(budget)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_equals_listing_all_draws(n: int, ties: bool) -> None:
    world, _ = random_world(4, vocabulary=3, length=2, prompts=2, ties=ties)
    chances, rewards = world.ref_logps.exp().tolist(), world.rewards.tolist()
    expected = torch.zeros(2, 7, dtype=torch.float64)
    for p in range(2):
        for draws in product(range(7), repeat=n):
            first_best = max(draws, key=lambda s: rewards[p][s])  # max keeps the first of equals
            expected[p, first_best] += math.prod(chances[p][s] for s in draws)
    assert len(set(rewards[0])) < 7 or not ties
    assert_close(world.best_of_n(n).exp(), expected, atol=1e-13, rtol=0)


def test_best_of_n_of_equal_rewards_is_the_reference() -> None:
    world = coin(1.0, 1.0)
    assert_close(world.best_of_n(64), world.ref_logps)


def test_a_large_n_takes_the_best_and_its_kl_stays_a_number() -> None:
    world = coin(0.0, 1.0)
    assert_close(world.best_of_n(10_000)[0].exp(), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert world.kl(world.best_of_n(10_000)) == pytest.approx(math.log(4))


def test_advantages_worked_by_hand() -> None:
    """At the reference, rewards 0 and 4: before the token 1, after it 0 or 4."""
    world = coin(0.0, 4.0)
    advantages = world.advantages(world.ref_logps[..., None], kl_coef=0.7)
    assert_close(advantages, torch.tensor([[[-1.0], [3.0]]], dtype=torch.float64))


def test_advantages_give_the_exact_gradient() -> None:
    """sum_y pi(y) sum_t A_t grad log pi_t is the gradient of reward minus kl_coef * KL."""
    world, reference = random_world(5, vocabulary=3, length=3, prompts=2)
    policy = TabularPolicy(world.completions, reference.logits.roll(1, 1))
    token_logps = policy.token_logps()
    logps = token_logps.sum(-1)
    exact = (logps.exp() * (world.rewards - 0.4 * (logps - world.ref_logps))).sum()
    (expected,) = torch.autograd.grad(exact, policy.logits, retain_graph=True)
    weighted = logps.detach().exp()[..., None] * world.advantages(token_logps, kl_coef=0.4)
    (ours,) = torch.autograd.grad((weighted * token_logps).sum(), policy.logits)
    assert_close(ours, expected, atol=1e-13, rtol=0)


def test_advantages_vanish_at_the_optimum() -> None:
    world, _ = random_world(6, vocabulary=2, length=1, prompts=2)
    best = world.optimum(0.5).logps[..., None]  # one token a completion: sequence = token
    assert_close(world.advantages(best, kl_coef=0.5), torch.zeros_like(best), atol=1e-13, rtol=0)


def test_trees_say_every_prompt_and_completion_in_the_worlds_tokens() -> None:
    world, _ = random_world(7, vocabulary=3, length=2, prompts=3)
    trees = world.trees()
    assert [tree.prompt for tree in trees] == [(0, 1, 1), (0, 1, 2), (0, 2, 1)]
    batch = collate(trees)
    assert torch.equal(batch.loss_mask, world.completions.mask.repeat(3, 1))
    assert torch.equal(batch.completion_ids, world.completions.tokens.repeat(3, 1))
    assert prompt_tokens(2, vocabulary=3) == [(0, 1), (0, 2)]


def test_a_world_is_a_function_of_its_seed() -> None:
    one, again, other = (random_world(seed, 3, 2, prompts=2)[0] for seed in (8, 8, 9))
    assert torch.equal(one.rewards, again.rewards)
    assert torch.equal(one.ref_logps, again.ref_logps)
    assert not torch.equal(one.rewards, other.rewards)
