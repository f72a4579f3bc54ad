"""Online DPO ends at the exact optimum, unless its judge always takes the better one."""

import pytest
import torch
from torch import Tensor

from alignlab.objectives.online_dpo import Labels, label, online_dpo_loss
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, divergence, random_world
from tests.conformance.preferences import minimise

BETA = 0.5


def train(
    world: EnumerableWorld, policy: TabularPolicy, labels: Labels, phases: int, steps: int
) -> list[float]:
    """KL(pi*||pi) after every phase: all pairs, weighted by the chances of the policy itself."""
    best = world.optimum(BETA).logps
    each = torch.arange(world.rewards.shape[1])
    first, second = torch.cartesian_prod(each, each).T
    r, ref = world.rewards, world.ref_logps
    preference = label(r[:, first], r[:, second], torch.tensor(0.5), labels=labels, scale=1.0)
    distances = []
    for _ in range(phases):
        drawn = policy.sequence_logps().detach().exp()
        weight = drawn[:, first] * drawn[:, second]

        def loss_of(weight: Tensor = weight) -> Tensor:
            logps = policy.sequence_logps()
            pairs = logps[:, first], logps[:, second], ref[:, first], ref[:, second]
            return (weight * online_dpo_loss(*pairs, preference, beta=BETA).losses).sum()

        minimise(policy.parameters(), loss_of, steps)
        distances.append(divergence(best, policy.sequence_logps().detach()))
    return distances


def test_soft_labels() -> None:
    world, policy = random_world(0, vocabulary=3, length=3, prompts=2)
    assert divergence(world.optimum(BETA).logps, world.ref_logps) > 0.3
    distances = train(world, policy, "soft", phases=15, steps=25)
    assert distances[0] > 1e-3  # it takes several phases
    assert distances[-1] < 1e-6


@pytest.mark.parametrize("gap", [-2.0, 0.0, 0.7])
def test_sampled_labels_have_the_gradient_of_soft_ones_on_average(gap: float) -> None:
    """Noise on an even grid stands for the uniform; so sampled labels share the fixed point."""
    noise = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    first, second = torch.full_like(noise, gap), torch.zeros_like(noise)
    own, other, rc, rr = (torch.full_like(noise, x) for x in (-1.0, -4.0, -2.0, -3.0))
    slopes = []
    for labels in ("sampled", "soft"):
        told = label(first, second, noise, labels=labels, scale=1.0)
        policy = own.clone().requires_grad_()
        online_dpo_loss(policy, other, rc, rr, told, beta=BETA).losses.mean().backward()
        assert policy.grad is not None
        slopes.append(float(policy.grad.sum()))
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-4)


def test_a_judge_that_always_takes_the_better_one_drives_the_policy_away() -> None:
    """The optimum is behind it: KL(pi*||pi) grows as long as it trains."""
    world, policy = random_world(0, vocabulary=3, length=3, prompts=2)
    distances = train(world, policy, "argmax", phases=30, steps=5)
    print(f"KL(pi*||pi) after 5, 10, 20, 30 phases: {[distances[k] for k in (4, 9, 19, 29)]}")
    assert distances[4] > 0.5
    assert distances[29] > distances[19] > distances[9] > distances[4]
    assert distances[29] > 3
