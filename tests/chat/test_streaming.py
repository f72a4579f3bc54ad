from collections.abc import Callable

import pytest
import torch

from alignlab.chat.streaming import stream
from alignlab.data.trees import PromptTree
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts.sampler import sample


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_stream_ends_as_the_samplers_completion(
    build: Callable[..., Policy], family: str, temperature: float
) -> None:
    policy, spec = build(family), SamplingSpec(temperature)
    for index in range(4):
        prompt = PromptTree(index, f"p{index}", (1, 4 + index, 9), ())
        drawn = sample(
            policy,
            [prompt],
            samples=1,
            max_new_tokens=12,
            spec=spec,
            seed=3,
            rollout=5,
            stop_ids=policy.stop_ids,
        )
        with torch.no_grad():
            parts = list(stream(policy, prompt, most=12, spec=spec, seed=3, rollout=5))
        assert parts[-1] == drawn.trees[0].completions[0]
        assert parts == [parts[-1][: n + 1] for n in range(len(parts))]
