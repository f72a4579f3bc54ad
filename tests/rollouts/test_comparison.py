"""Drawn log-probs are held against the training forward's: what passes, and what is said if not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.evaluation import points
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts import sampler
from alignlab.rollouts.comparison import check_drawn, check_samples
from alignlab.rollouts.samples import Samples
from alignlab.stages import pool_sampling
from tests.rollouts.word_sum import WordSum
from tests.tiny import EOS

Build = Callable[..., Policy]
PLAIN = SamplingSpec()
WARM = SamplingSpec(temperature=0.7)
# Two prompts, completions of 2, 1 and 3 tokens.
TREES = [PromptTree(0, "a", (1,), ((4, 5), (6,))), PromptTree(1, "b", (1, 3), ((7, 8, 2),))]
DRAWN = Samples(
    TREES,
    [[torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])], [torch.tensor([-4.0, -5.0, -6.0])]],
    [[False, False], [True]],
)


def test_the_token_that_is_off_is_named() -> None:
    scored = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0], dtype=torch.float64)
    assert check_drawn(DRAWN, scored, "Llama") == 0
    near = scored + torch.tensor([0, 0, 9e-4, 0, -5e-4, 0], dtype=torch.float64)
    assert check_drawn(DRAWN, near, "Llama") == pytest.approx(9e-4)
    far = near + torch.tensor([0, 0, 0, 0, -1.5, 0], dtype=torch.float64)
    said = (
        r"Llama is sampled from another .* differ by 1\.5e\+00 nats a token\. Token 2 of a "
        r"completion of prompt 'b' was drawn with -5\.0000 and has -6\.5005 .* 16\.7% of 6 tokens"
    )
    with pytest.raises(ConfigError, match=said):
        check_drawn(DRAWN, far, "Llama")


def test_coarse_types_are_compared_by_their_mean_square() -> None:
    """One token of six off by 0.2 is rounding in bf16 (rms 0.08), by 0.3 it is not (0.12)."""
    scored = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])
    off = torch.tensor([0, 0, 0.2, 0, 0, 0])
    assert check_drawn(DRAWN, scored + off, "Llama", torch.bfloat16) == pytest.approx(0.2)
    for dtype, times in ((torch.float32, 1.0), (torch.bfloat16, 1.5)):
        with pytest.raises(ConfigError, match="another distribution"):
            check_drawn(DRAWN, scored + times * off, "Llama", dtype)


def test_log_probs_that_are_not_numbers_are_a_policy_that_diverged() -> None:
    with pytest.raises(FloatingPointError, match="NaN"):
        check_drawn(DRAWN, torch.full((6,), torch.nan), "Llama")


def test_nothing_drawn_is_nothing_to_compare(build: Build) -> None:
    assert check_samples(build(), Samples([], [], []), PLAIN) == 0


@pytest.mark.parametrize("most", [2, 5, 100])
def test_some_completions_are_read_again_the_longest_among_them(
    build: Build, ragged: list[PromptTree], most: int
) -> None:
    policy = build()
    drawn = sampler.sample(
        policy, ragged, samples=3, max_new_tokens=6, spec=WARM, seed=0, stop_ids=(EOS,)
    )
    assert check_samples(policy, drawn, WARM, most=most) < 1e-9
    lengths = [len(t.prompt) + len(c) for t in drawn.trees for c in t.completions]
    longest = max(range(len(lengths)), key=lambda i: (lengths[i], i))  # the last of equals
    drawn.token_logps[longest // 3][longest % 3][-1] += 0.01
    policy.train()
    with pytest.raises(ConfigError, match=f"of prompt {drawn.trees[longest // 3].id!r}"):
        check_samples(policy, drawn, WARM, most=most)
    assert policy.training


def test_evaluations_and_pools_refuse_a_sampler_of_another_distribution(
    build: Build, ragged: list[PromptTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build(dtype="float32")
    settings: dict[str, Any] = {"max_new_tokens": 4, "seed": 0, "stop_ids": (EOS,), "samples": 2}

    def warm(*args: Any, **given: Any) -> Samples:
        return sampler.sample(*args, **(given | {"spec": WARM}))

    reward = WordSum(modulus=7)
    prompts = [replace(tree, index=i) for i, tree in enumerate(ragged)]
    points.evaluate_policy(policy, policy, prompts, reward, **settings)
    pool_sampling.build_pool(policy, prompts, reward, **settings)
    monkeypatch.setattr(points, "sample", warm)
    monkeypatch.setattr(pool_sampling, "sample", warm)
    with pytest.raises(ConfigError, match="another distribution than is trained and evaluated"):
        points.evaluate_policy(policy, policy, prompts, reward, **settings)
    with pytest.raises(ConfigError, match="another distribution than is trained and evaluated"):
        pool_sampling.build_pool(policy, prompts, reward, **settings)
