"""The pool: its file, and its sampling from real policies against enumeration."""

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
from alignlab.stages.pool_sampling import build_pool, mixture_logps
from tests.evaluation.worlds import World
from tests.tiny import VOCABULARY

Build = Callable[..., Policy]


def same(a: Pool, b: Pool) -> None:
    assert (a.prompt_ids, a.proposals, a.texts) == (b.prompt_ids, b.proposals, b.texts)
    for name in ("rewards", "proposal", "log_ref", "log_mixture"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert (a.proxy is None) == (b.proxy is None)
    if a.proxy is not None and b.proxy is not None:
        assert np.array_equal(a.proxy, b.proxy)


def test_round_trip(tmp_path: Path) -> None:
    world = World(3, 6, seed=0)
    pool = world.pool(4, 0, [world.tilted(1.0)], 2)
    for saved in (pool, world.exact_pool()):
        saved.save(tmp_path / "a" / "pool.parquet")
        same(Pool.load(tmp_path / "a" / "pool.parquet"), saved)
    texts = tuple(tuple(f" text {p} {i}" for i in range(6)) for p in range(3))
    with_texts = Pool(**{**vars_of(pool), "texts": texts})
    with_texts.save(tmp_path / "pool.parquet")
    same(Pool.load(tmp_path / "pool.parquet"), with_texts)


def vars_of(pool: Pool) -> dict:
    return {name: getattr(pool, name) for name in Pool.__dataclass_fields__}


def test_take_reorders_prompts() -> None:
    pool = World(3, 6, seed=0).pool(4, 0)
    taken = pool.take(("prompt-2", "prompt-0"))
    assert np.array_equal(taken.rewards, pool.rewards[[2, 0]])
    assert np.array_equal(taken.log_ref, pool.log_ref[[2, 0]])
    assert taken.prompt_ids == ("prompt-2", "prompt-0")
    with pytest.raises(DataError, match=r"1 of 2 evaluated prompts are not in it, e\.g\. 'nobody'"):
        pool.take(("prompt-0", "nobody"))


def test_a_ragged_pool_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "pool.parquet"
    World(3, 6, seed=0).pool(4, 0).save(path)
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    with pytest.raises(DataError, match="samples of the same proposals for every prompt"):
        Pool.load(path)


def test_mixture_worked_by_hand() -> None:
    """3 samples of q1 and 1 of q2: 3/4 * 0.2 + 1/4 * 0.6 = 0.3."""
    found = mixture_logps([np.log([0.2]), np.log([0.6])], [3, 1])
    assert found == pytest.approx(np.log([0.3]))
    assert mixture_logps([np.log([0.2])], [5]) == pytest.approx(np.log([0.2]))


class Numbers(Reward):
    """The mean of the numbers in the words w3 to w31, scaled to about -1 to 1."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([sum(map(value, text.split())) for text in completions])


def value(word: str) -> float:
    return (int(word.strip("w")) - 17) / 14


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


def all_logps(policy: Policy, tree: PromptTree) -> np.ndarray:
    """``[V * V]`` log-probs of every completion of two tokens."""
    out = []
    with torch.no_grad():
        first = policy.model(torch.tensor([tree.prompt])).logits[0, -1].log_softmax(-1)
        for a in range(VOCABULARY):
            ids = torch.tensor([[*tree.prompt, a]])
            out.append(first[a] + policy.model(ids).logits[0, -1].log_softmax(-1))
    return torch.cat(out).numpy()


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


class Ended(Reward):
    """1 for a completion that ended by itself, 0 for one that was cut off."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([float(getattr(said, "ends", -1)) for said in completions])


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
