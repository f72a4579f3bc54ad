"""Sampled KL estimators against the exact KL, and what their gradients really are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.functional import inverse_cdf, kl_full, kl_k1, kl_k2, kl_k3, uniform
from alignlab.results.statistics import clustered_se
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, random_world

PROMPTS, SAMPLES = 64, 64
Estimator = Callable[[Tensor, Tensor], Tensor]


def moved_policy() -> tuple[EnumerableWorld, TabularPolicy, TabularPolicy]:
    """A world, its reference and a policy some way off, at a KL of order 1."""
    world, reference = random_world(11, vocabulary=4, length=3, prompts=PROMPTS)
    generator = torch.Generator().manual_seed(12)
    step = torch.randn(reference.logits.shape, generator=generator, dtype=torch.float64)
    return world, reference, TabularPolicy(world.completions, reference.logits + step)


def per_completion(estimator: Estimator, policy: TabularPolicy, reference: TabularPolicy) -> Tensor:
    """``[P, S]`` sums over the tokens of each completion."""
    with torch.no_grad():
        if estimator is kl_full:
            steps = kl_full(policy.next_logps(), reference.next_logps())
        else:
            steps = estimator(policy.token_logps(), reference.token_logps())
        return (steps * policy.completions.mask).sum(-1)


def sampled_mean(values: Tensor, logps: Tensor) -> tuple[Tensor, Tensor]:
    """Per-prompt means over samples from the policy, ``[P]``, and all sampled values."""
    prompt = torch.arange(PROMPTS * SAMPLES) // SAMPLES
    sample = torch.arange(PROMPTS * SAMPLES) % SAMPLES
    text = inverse_cdf(logps[prompt], uniform(0, 0, prompt, sample, 0))
    drawn = values[prompt, text].view(PROMPTS, SAMPLES)
    return drawn.mean(1), drawn


@pytest.mark.parametrize("estimator", [kl_k1, kl_k2, kl_k3, kl_full])
def test_sampled_estimate_within_four_standard_errors(estimator: Estimator) -> None:
    world, reference, policy = moved_policy()
    logps = policy.sequence_logps().detach()
    values = per_completion(estimator, policy, reference)
    exact = (logps.exp() * (logps - world.ref_logps)).sum(1)
    expected = (logps.exp() * values).sum(1)
    if estimator is kl_k2:  # biased: it is held to its own expectation
        assert (expected - exact).abs().mean() > 0.1 * exact.mean()
    else:
        assert_close(expected, exact, atol=1e-12, rtol=0)
    means, _ = sampled_mean(values, logps)
    error = means - expected  # prompts are the clusters
    assert 0 < abs(error.mean().item()) < 4 * clustered_se(error.numpy())


def test_rao_blackwell_is_never_negative_and_varies_less_than_k1() -> None:
    _, reference, policy = moved_policy()
    logps = policy.sequence_logps().detach()
    spread = {}
    for estimator in (kl_k1, kl_full):
        means, drawn = sampled_mean(per_completion(estimator, policy, reference), logps)
        spread[estimator] = (drawn - means[:, None]).square().mean().item()
        assert (drawn.min().item() < 0) == (estimator is kl_k1)
    assert spread[kl_full] < spread[kl_k1] / 2


def loss_gradient(
    policy: TabularPolicy, reference: TabularPolicy, estimator: Estimator, per_token: bool
) -> Tensor:
    """Expected gradient of the estimator used as a loss on samples that are held fixed."""
    logps, ref_logps = policy.token_logps(), reference.token_logps().detach()
    if not per_token:
        logps, ref_logps = logps.sum(-1, keepdim=True), ref_logps.sum(-1, keepdim=True)
    chance = policy.sequence_logps().detach().exp()
    loss = (chance * estimator(logps, ref_logps).sum(-1)).sum()
    return torch.autograd.grad(loss, policy.logits)[0]


def test_which_estimator_has_the_gradient_of_the_kl() -> None:
    """k1 in the reward and sequence-level k2 in the loss do; per token k2, and k3, do not."""
    world, reference, policy = moved_policy()
    logps = policy.sequence_logps()
    kl = (logps.exp() * (logps - world.ref_logps)).sum()
    (exact,) = torch.autograd.grad(kl, policy.logits)
    size = exact.norm().item()

    # In the reward: the advantage of -k1, times the score, is the gradient of -KL.
    free = EnumerableWorld(world.completions, world.ref_logps, torch.zeros_like(world.rewards))
    token_logps = policy.token_logps()
    chance = token_logps.detach().sum(-1, keepdim=True).exp()
    surrogate = (chance * free.advantages(token_logps, kl_coef=1.0) * token_logps).sum()
    (in_reward,) = torch.autograd.grad(surrogate, policy.logits)
    assert_close(in_reward, -exact, atol=1e-12, rtol=0)

    assert_close(
        loss_gradient(policy, reference, kl_k2, per_token=False), exact, atol=1e-12, rtol=0
    )
    nothing = torch.zeros_like(exact)
    assert_close(loss_gradient(policy, reference, kl_k1, True), nothing, atol=1e-12, rtol=0)
    for estimator, per_token in ((kl_k2, True), (kl_k3, True), (kl_k3, False)):
        off = (loss_gradient(policy, reference, estimator, per_token) - exact).norm().item()
        assert off > 0.05 * size
