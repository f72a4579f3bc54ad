"""Where objectives end that use samples of the reference: each optimum by enumeration.

The pool is as good as it can be: it holds every completion as often as the reference says it. A
prompt's rewards are partly equal, so ties count.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.objectives.astar_po import astar_po_loss, optimal_value
from alignlab.objectives.ddo_rm import ddo_rm_loss
from alignlab.objectives.qrpo import log_partition, qrpo_loss, quantiles
from alignlab.rewards.base import Reward
from alignlab.rewards.pooled import BestOfN
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, divergence, random_world
from tests.conformance.preferences import minimise
from tests.conformance.test_policy_gradient_optimum import PROMPTS, chances_of, policy_of, settle


@pytest.fixture
def counted() -> tuple[EnumerableWorld, TabularPolicy, Tensor]:
    """A world, its reference, and how often ``[P, S]`` the pool holds each of 15 completions."""
    world, _ = random_world(0, vocabulary=3, length=3, prompts=PROMPTS, ties=True)
    counts = (60 * world.ref_logps.exp()).ceil().long()
    chances = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    world = replace(world, ref_logps=chances.log())
    return world, policy_of(world.completions, world.ref_logps), counts


def no_larger(world: EnumerableWorld) -> Tensor:
    """``[P, S]``: the reference's probability of a reward that is no larger."""
    up_to = (world.rewards[:, :, None] >= world.rewards[:, None, :]).double()
    return (up_to @ world.ref_logps.exp()[..., None]).squeeze(-1)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_qrpo_ends_at_the_reference_tilted_by_quantiles(beta: float, counted) -> None:
    """With ties, too: the normaliser is that of the prompt's own quantiles."""
    world, policy, counts = counted
    prompt = torch.arange(PROMPTS).repeat_interleave(counts.sum(1))
    said = torch.cat([torch.arange(len(n)).repeat_interleave(n) for n in counts])
    q = quantiles(world.rewards[prompt, said], prompt).double()
    log_z = log_partition(q, prompt, beta=beta)
    ref = world.ref_logps[prompt, said]

    def loss_of() -> Tensor:
        logps = policy.sequence_logps()[prompt, said]
        return qrpo_loss(logps, ref, q, log_z, beta=beta).mean()

    minimise(policy.parameters(), loss_of)
    expected = (world.ref_logps + no_larger(world) / beta).log_softmax(1)
    logps = policy.sequence_logps().detach()
    assert divergence(expected, logps) < 1e-6
    assert loss_of() < 1e-12  # every completion is where it should be
    assert divergence(expected, world.ref_logps) > 0.05


def test_ddo_rm_ends_at_the_optimum_however_few_the_candidates(counted) -> None:
    """All triples that the reference may draw, with their chances; a pool of more says no more."""
    beta = 0.5
    world, policy, _ = counted
    each = torch.arange(world.rewards.shape[1])
    triples = torch.cartesian_prod(each, each, each)
    chances = world.ref_logps[:, triples].sum(-1).exp().flatten()
    group = torch.arange(PROMPTS * len(triples)).repeat_interleave(3)
    ref, rewards = (x[:, triples].flatten() for x in (world.ref_logps, world.rewards))

    def loss_of() -> Tensor:
        logps = policy.sequence_logps()[:, triples].flatten()
        return (chances * ddo_rm_loss(logps, ref, rewards, group, beta=beta)).sum()

    minimise(policy.parameters(), loss_of, steps=100)
    logps = policy.sequence_logps().detach()
    assert divergence(world.optimum(beta).logps, logps) < 1e-6
    assert divergence(world.optimum(1.2 * beta).logps, logps) > 1e-3


def values_of(world: EnumerableWorld, counts: Tensor, beta: float) -> Tensor:
    """``[P, 1]`` optimal values from the pool."""
    pools = [r.repeat_interleave(n).tolist() for r, n in zip(world.rewards, counts, strict=True)]
    return torch.tensor([[optimal_value(pool, beta=beta)] for pool in pools], dtype=torch.float64)


def test_the_pools_optimal_value_is_the_logarithm_of_the_normaliser(counted) -> None:
    world, _, counts = counted
    expected = 0.5 * (world.ref_logps + world.rewards / 0.5).logsumexp(1, keepdim=True)
    assert_close(values_of(world, counts, 0.5), expected)


@pytest.mark.parametrize("value_beta", [0.5, 2.0])
def test_astar_po_on_own_samples_ends_at_the_optimum_of_beta(value_beta: float, counted) -> None:
    """Whatever the value: on own samples a constant of the prompt has no gradient."""
    beta = 0.5
    world, policy, counts = counted
    advantages = (world.rewards - values_of(world, counts, value_beta)).flatten()
    ref = world.ref_logps.flatten()

    def loss(token_logps: Tensor) -> Tensor:
        losses = astar_po_loss(token_logps.sum(-1).flatten(), ref, advantages, beta=beta)
        return (chances_of(token_logps).flatten() * losses).sum()

    logps = settle(policy, loss, steps=200)
    assert divergence(world.optimum(beta).logps, logps) < 1e-6
    assert divergence(world.optimum(1.2 * beta).logps, logps) > 1e-3


@pytest.mark.parametrize(("value_beta", "there"), [(0.5, True), (2.0, False)])
def test_astar_po_on_other_samples_needs_the_value_of_its_own_beta(
    value_beta: float, there: bool, counted
) -> None:
    """Here the reference's; within a phase, those of the policy before the last updates."""
    beta = 0.5
    world, policy, counts = counted
    advantages = world.rewards - values_of(world, counts, value_beta)
    chances = world.ref_logps.exp()

    def loss_of() -> Tensor:
        logps = policy.sequence_logps()
        return (chances * astar_po_loss(logps, world.ref_logps, advantages, beta=beta)).sum()

    minimise(policy.parameters(), loss_of)
    off = divergence(world.optimum(beta).logps, policy.sequence_logps().detach())
    assert (off < 1e-6) == there
    assert there or off > 0.01


class Listed(Reward):
    """The reward of each text of a world, by name."""

    def __init__(self, of: dict[tuple[str, str], float]) -> None:
        self.of = of

    def __call__(self, prompts, completions):
        return torch.tensor([self.of[key] for key in zip(prompts, completions, strict=True)])


def vbon(world: EnumerableWorld, counts: Tensor, n: float, folder: Path) -> EnumerableWorld:
    """The world with the reward of ``BestOfN``, whose pool is a file of all samples."""
    of, rows = dict[tuple[str, str], float](), []
    for p, (own, rewards) in enumerate(zip(counts, world.rewards, strict=True)):
        said = torch.arange(len(own)).repeat_interleave(own)
        texts = [f" text {s}" for s in said.tolist()]
        rows.append({"prompt": f"prompt {p}", "completions": texts,
                     "ratings": rewards[said].tolist()})  # fmt: skip
        of |= {(f"prompt {p}", f" text {s}"): float(r) for s, r in enumerate(rewards)}
    pool = folder / "candidates.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [[*side] for side in zip(*of, strict=True)]
    reward = BestOfN(Listed(of), str(pool), n)(*asked)
    return replace(world, rewards=reward.view(world.rewards.shape))


def test_vbon_is_the_reference_times_a_power_of_its_distribution(counted, tmp_path) -> None:
    """pi_ref F^(n - 1) / Z at kl_coef 1, which RLOO is known to reach; close to best-of-n."""
    world, _, counts = counted
    best = vbon(world, counts, 4, tmp_path).optimum(1.0).logps
    expected = (world.ref_logps + 3 * no_larger(world).log()).log_softmax(1)
    assert divergence(expected, best) < 1e-12
    assert divergence(expected, world.best_of_n(4)) < 0.1
    assert divergence(expected, world.ref_logps) > 0.2


@pytest.mark.parametrize(("n", "kl", "reward"), [(4, 0.6262, 0.8079), (16, 1.8215, 0.9501)])
def test_vbon_pays_less_and_gains_less_than_best_of_n(n, kl, reward, counted) -> None:
    """50 completions that are equally likely, with rewards 1/50 to 1."""
    levels = torch.arange(1, 51, dtype=torch.float64)[None] / 50
    world = replace(
        counted[0], ref_logps=torch.full((1, 50), -math.log(50), dtype=torch.float64),
        rewards=levels,
    )  # fmt: skip
    best = replace(world, rewards=(n - 1) * no_larger(world).log()).optimum(1.0).logps
    assert world.kl(best) == pytest.approx(kl, abs=5e-5)
    assert world.reward(best) == pytest.approx(reward, abs=5e-5)
    assert world.kl(best) < world.kl(world.best_of_n(n)) < math.log(n) - (n - 1) / n
