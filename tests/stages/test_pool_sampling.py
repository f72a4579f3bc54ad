"""Sampling the pool from real policies, against enumeration."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alignlab.data.trees import PromptTree
from alignlab.errors import DataError
from alignlab.evaluation.oracle import optimum_at_kl, reference_reward
from alignlab.models.policy import Policy
from alignlab.results.pool import Pool
from alignlab.rewards import Reward
from alignlab.stages.pool_sampling import build_pool, draw_pool, mixture_logps
from tests.evaluation.worlds import World
from tests.results.test_pool import same
from tests.tiny import VOCABULARY

Build = Callable[..., Policy]


class Numbers(Reward):
    """The mean of the numbers in the words w3 to w31, scaled to about -1 to 1."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([sum(map(value, text.split())) for text in completions])


def value(word: str) -> float:
    return (int(word.strip("w")) - 17) / 14


def all_logps(policy: Policy, tree: PromptTree) -> np.ndarray:
    """``[V * V]`` log-probs of every completion of two tokens."""
    out = []
    with torch.no_grad():
        first = policy.model(torch.tensor([tree.prompt])).logits[0, -1].log_softmax(-1)
        for a in range(VOCABULARY):
            ids = torch.tensor([[*tree.prompt, a]])
            out.append(first[a] + policy.model(ids).logits[0, -1].log_softmax(-1))
    return torch.cat(out).numpy()


class Ended(Reward):
    """1 for a completion that ended by itself, 0 for one that was cut off."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([float(getattr(said, "ends", -1)) for said in completions])


def test_mixture_worked_by_hand() -> None:
    """3 samples of q1 and 1 of q2: 3/4 * 0.2 + 1/4 * 0.6 = 0.3."""
    found = mixture_logps([np.log([0.2]), np.log([0.6])], [3, 1])
    assert found == pytest.approx(np.log([0.3]))
    assert mixture_logps([np.log([0.2])], [5]) == pytest.approx(np.log([0.2]))


def test_a_pool_of_two_policies_gives_the_enumerated_optimum(build: Build) -> None:
    """Completions of exactly two tokens: 1,024 of them, so the optimum at KL 0.5 is a sum."""
    reference, proposal = build("gpt2"), build("gpt2")
    with torch.no_grad():  # a policy that likes high numbers
        proposal.model.transformer.ln_f.weight.mul_(0.5)
    prompts = [PromptTree(i, f"p{i}", (1, 5 + i), ()) for i in range(3)]
    log_ref = np.stack([all_logps(reference, tree) for tree in prompts])
    tokens = [0.0 if t < 3 else value(f"w{t}") for t in range(VOCABULARY)]
    rewards = np.array([a + b for a in tokens for b in tokens])
    world = World(3, VOCABULARY**2, seed=0)
    world.ref, world.reward = np.exp(log_ref), np.tile(rewards, (3, 1))
    exact, _ = world.optimum_at(0.5)
    r_ref = world.mean_reward(world.ref).mean()

    pool = build_pool(
        reference,
        prompts,
        Numbers(),
        samples=1500,
        max_new_tokens=2,
        seed=0,
        stop_ids=[],
        proposals={"other": proposal},
        proposal_samples=500,
        proxy=Numbers(),
        batch_size=3000,
    )
    assert pool.proposals == ("reference", "other")
    assert pool.from_reference().tolist() == [True] * 1500 + [False] * 500
    assert pool.texts is not None
    for p in range(3):  # log-probs of texts against the enumeration, both proposals'
        other = all_logps(proposal, prompts[p])
        mixture = np.log(0.75 * world.ref[p] + 0.25 * np.exp(other))
        by_text = {}
        for a in range(3, VOCABULARY):
            for b in range(3, VOCABULARY):
                cell = a * VOCABULARY + b
                by_text[f" w{a} w{b}"] = (log_ref[p, cell], mixture[cell], rewards[cell])
        for i in (0, 7, 1600):
            if (text := pool.texts[p][i]) in by_text:
                found = (pool.log_ref[p, i], pool.log_mixture[p, i], pool.rewards[p, i])
                assert found == pytest.approx(by_text[text], rel=1e-6)
    gain = exact - r_ref
    assert reference_reward(pool).mean() == pytest.approx(r_ref, abs=0.05 * gain)
    solved = optimum_at_kl(pool, 0.5)
    assert solved is not None
    assert solved.reliable
    assert solved.reward.mean() == pytest.approx(exact, abs=0.05 * gain)
    assert pool.proxy is not None
    assert np.array_equal(pool.proxy, pool.rewards)


def test_samples_differ_from_those_of_the_evaluation_and_repeat(build: Build) -> None:
    policy = build()
    prompts = [PromptTree(0, "a", (1,), ()), PromptTree(1, "b", (1, 4), ())]

    def draw() -> Pool:
        return build_pool(
            policy, prompts, Numbers(), samples=6, max_new_tokens=3, seed=0, stop_ids=[]
        )

    same(draw(), draw())
    assert draw().log_ratio is None


def test_bad_pools_are_refused(build: Build) -> None:
    policy = build()
    prompts = [PromptTree(0, "a", (1,), ())]

    def draw(prompts: list[PromptTree], **others: Policy) -> None:
        build_pool(
            policy,
            prompts,
            Numbers(),
            samples=2,
            max_new_tokens=2,
            seed=0,
            stop_ids=[],
            proposals=others,
            proposal_samples=2,
        )

    with pytest.raises(DataError, match="needs prompts, got none"):
        draw([])
    with pytest.raises(DataError, match="must not be named 'reference'"):
        draw(prompts, reference=policy)


def test_rewards_are_told_which_completions_ended(build: Build) -> None:
    """One token at most: what is not the stop token was cut off, of every proposal."""
    policy, other = build(), build()
    prompts = [PromptTree(0, "a", (1,), ()), PromptTree(1, "b", (1, 4), ())]
    pool = build_pool(
        policy,
        prompts,
        Ended(),
        samples=40,
        max_new_tokens=1,
        seed=0,
        stop_ids=[5],
        proposals={"other": other},
        proposal_samples=20,
    )
    assert pool.texts is not None
    stopped = [[float(text.strip() == "w5") for text in row] for row in pool.texts]
    assert pool.rewards.tolist() == stopped
    assert 0 < sum(map(sum, stopped)) < 120


def test_the_pools_stage_writes_a_pool(tmp_path: Path, build: Callable[..., Policy]) -> None:
    build(dtype="float32").save(tmp_path / "reference")
    build("gpt2", dtype="float32").save(tmp_path / "other")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": " w4 w5"}\n{"prompt": " w6"}\n{"prompt": " w7"}\n')
    draw_pool(
        tmp_path / "out",
        reference=str(tmp_path / "reference"),
        prompts=str(prompts),
        reward="alignlab.rewards.rule.ToySentiment",
        samples=6,
        max_new_tokens=4,
        seed=0,
        limit=2,
        proxy={"class_path": "alignlab.rewards.rule.ToySentiment"},
        proposals={"other": str(tmp_path / "other")},
        proposal_samples=2,
    )
    pool = Pool.load(tmp_path / "out" / "pool.parquet")
    assert pool.rewards.shape == (2, 8)
    assert pool.proposals == ("reference", "other")
    assert pool.proxy is not None
    assert np.array_equal(pool.proxy, pool.rewards)
