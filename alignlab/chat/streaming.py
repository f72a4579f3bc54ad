"""A completion token by token, as it is sampled."""

from collections.abc import Iterator

import torch

from alignlab.data.trees import PromptTree
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.decoding import decoding_of, next_logits, prefill
from alignlab.models.policy import Policy
from alignlab.rollouts.sampler import draw


def stream(
    policy: Policy, prompt: PromptTree, *, most: int, spec: SamplingSpec, seed: int, rollout: int
) -> Iterator[tuple[int, ...]]:
    """The completion that ``rollouts.sampler.sample`` draws, one token longer each time.

    Args:
        policy: In eval mode; gradients are switched off by the caller.
        prompt: What is completed.
        most: The longest completion.
        spec: Temperature, top-k and top-p.
        seed: Of the noise.
        rollout: Another number is fresh noise.

    Yields:
        The ids so far, a stop token included.
    """
    first = torch.tensor([0], device=policy.device)
    index = torch.tensor([[prompt.index]], device=policy.device)
    positions = torch.arange(most, device=policy.device)
    noise = uniform(seed, rollout, index, first[None], positions)
    state = prefill(policy, [prompt.prompt], first, most, decoding_of(policy))
    ids: tuple[int, ...] = ()
    for t in range(most):
        token, _ = draw(next_logits(policy, state), spec, noise[:, t])
        ids += (int(token),)
        yield ids
        if ids[-1] in policy.stop_ids:
            return
        if t + 1 < most:
            state.step(policy, token)
