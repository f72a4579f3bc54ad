"""A policy's point against token-by-token loops and enumeration of every completion."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from alignlab.evaluation import scoring
from alignlab.evaluation.points import PointEstimate, evaluate_policy
from alignlab.evaluation.scoring import completion_kl, completion_logps, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rewards import Reward
from alignlab.rewards.base import checked_rewards
from tests.tiny import EOS, VOCABULARY

Build = Callable[..., Policy]
PLAIN = SamplingSpec()


class Length(Reward):
    """The number of words, and a tenth of that of the prompt."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        pairs = zip(prompts, completions, strict=True)
        return torch.tensor([len(c.split()) + 0.1 * len(p.split()) for p, c in pairs])


@pytest.fixture(scope="module")
def policies(build: Build) -> tuple[Policy, Policy]:
    """A policy and a reference that differs from it in every weight."""
    policy, reference = build(), build()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in reference.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.add_(0.1 * noise)
    return policy, reference


def next_logps(policy: Policy, ids: Sequence[int], temperature: float = 1.0) -> np.ndarray:
    with torch.no_grad():
        logits = policy.model(torch.tensor([ids]), use_cache=False).logits[0, -1] / temperature
    return (logits - logits.logsumexp(-1)).numpy()


def completed(trees: Sequence[PromptTree]) -> list[PromptTree]:
    """Three completions of 1 to 4 tokens for each tree."""
    rng = np.random.default_rng(0)
    return [
        replace(
            tree,
            completions=tuple(
                tuple(rng.integers(0, VOCABULARY, size=n).tolist()) for n in (4, 1, 2)
            ),
        )
        for tree in trees
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_kl_is_the_sum_over_steps_of_a_double_loop(
    policies: tuple[Policy, Policy], ragged: list[PromptTree], batch_size: int, temperature: float
) -> None:
    policy, reference = policies
    trees = completed(ragged)
    spec = SamplingSpec(temperature=temperature)
    with evaluating(*policies):
        found = completion_kl(policy, reference, trees, spec=spec, batch_size=batch_size)
    exact, k1 = [], []
    for tree in trees:
        for completion in tree.completions:
            exact.append(0.0)
            k1.append(0.0)
            for t, token in enumerate(completion):
                ids = [*tree.prompt, *completion[:t]]
                p = next_logps(policy, ids, temperature)
                q = next_logps(reference, ids, temperature)
                exact[-1] += sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
                k1[-1] += p[token] - q[token]
    assert found.exact.tolist() == pytest.approx(exact, rel=1e-9)
    assert found.k1.tolist() == pytest.approx(k1, rel=1e-9, abs=1e-12)


def test_a_small_table_of_logits_changes_nothing(
    policies: tuple[Policy, Policy], ragged: list[PromptTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = completed(ragged)
    with evaluating(*policies):
        wanted = completion_kl(*policies, trees, spec=PLAIN, batch_size=100)
        monkeypatch.setattr(scoring, "MAX_CELLS", 5 * VOCABULARY)  # five positions at a time
        found = completion_kl(*policies, trees, spec=PLAIN, batch_size=100)
        logps = completion_logps(policies[0], trees, spec=PLAIN, batch_size=100)
    assert torch.allclose(found.exact, wanted.exact, rtol=1e-10)
    by_hand = [
        sum(next_logps(policies[0], [*t.prompt, *c[:i]])[c[i]] for i in range(len(c)))
        for t in trees
        for c in t.completions
    ]
    assert logps.tolist() == pytest.approx(by_hand, rel=1e-9)


def outcomes(policy: Policy, reference: Policy, tree: PromptTree) -> list[dict[str, float]]:
    """Every completion of at most two tokens that EOS ends: probability and what is measured."""
    found = []
    p0, q0 = next_logps(policy, tree.prompt), next_logps(reference, tree.prompt)
    step = sum(np.exp(p0) * (p0 - q0))
    for a in range(VOCABULARY):
        ratio = p0[a] - q0[a]
        if a == EOS:
            shared = {"kl": step, "kl_k1": ratio, "reward": 0.1, "length": 1, "entropy": -p0[a]}
            found.append({"p": np.exp(p0[a]), **shared})
            continue
        p1, q1 = next_logps(policy, [*tree.prompt, a]), next_logps(reference, [*tree.prompt, a])
        both = step + sum(np.exp(p1) * (p1 - q1))
        found += [
            {
                "p": np.exp(p0[a] + p1[b]),
                "kl": both,
                "kl_k1": ratio + p1[b] - q1[b],
                "reward": 0.1 + (a > EOS) + (b > EOS),
                "length": 2,
                "entropy": -p0[a] - p1[b],  # minus the log-prob of the completion
            }
            for b in range(VOCABULARY)
        ]
    return found


def test_estimates_agree_with_enumeration_of_every_completion(
    policies: tuple[Policy, Policy],
) -> None:
    """Within four standard errors, which are finite sums too; both KL estimates have one mean."""
    prompts = [PromptTree(i, f"p{i}", (1, 3 + i), ()) for i in range(4)]
    found = evaluate_policy(
        *policies,
        prompts,
        Length(),
        samples=400,
        max_new_tokens=2,
        seed=3,
        stop_ids=[EOS],
        proxy=Length(),
        batch_size=1000,
    )
    for i, tree in enumerate(prompts):
        every = outcomes(*policies, tree)
        assert sum(o["p"] for o in every) == pytest.approx(1)
        mean = {n: sum(o["p"] * o[n] for o in every) for n in every[0]}
        assert mean["kl_k1"] == pytest.approx(mean["kl"], rel=1e-9)
        for name in ("kl", "kl_k1", "reward", "length", "entropy"):
            se = (sum(o["p"] * (o[name] - mean[name]) ** 2 for o in every) / 400) ** 0.5
            value = getattr(found.scores, name)[i]
            assert value == pytest.approx(mean[name], abs=4 * se + 1e-6), name
    assert found.scores.kl.mean() > 0.02  # there was something to estimate
    assert np.std([s.kl for s in found.samples]) > 0
    kept = np.reshape([s.reward for s in found.samples], (4, 400)).mean(1)
    assert found.scores.reward == pytest.approx(kept)
    assert found.scores.proxy_reward == pytest.approx(kept)
    assert found.scores.prompt_ids == ("p0", "p1", "p2", "p3")
    assert found.scores.n_samples.tolist() == [400] * 4


def evaluate(
    policy: Policy, reference: Policy, prompts: Sequence[PromptTree], **changed: object
) -> PointEstimate:
    arguments = {
        "samples": 3,
        "max_new_tokens": 5,
        "seed": 0,
        "stop_ids": [EOS],
        "batch_size": 7,
    } | changed
    return evaluate_policy(policy, reference, prompts, Length(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 100])
def test_log_probs_of_held_out_pairs_are_means_over_each_prompts_pairs(
    policies: tuple[Policy, Policy], batch_size: int
) -> None:
    """One pair, three and two; the second prompt's pairs condition on prompts of their own."""
    prompts = [PromptTree(i, f"p{i}", (1, 3 + i), ()) for i in range(3)]
    rng = np.random.default_rng(1)
    pairs = [
        [
            PromptTree(
                10 * i + k,
                f"pair {i} {k}",
                (1, 3 + i, *[4] * (k if i == 1 else 0)),
                tuple(tuple(rng.integers(3, VOCABULARY, size=n).tolist()) for n in (1 + k, 3)),
            )
            for k in range(count)
        ]
        for i, count in enumerate((1, 3, 2))
    ]
    found = evaluate(*policies, prompts, pairs=pairs, batch_size=batch_size).scores
    for side, name in enumerate(("chosen_logp", "rejected_logp")):
        by_hand = [
            np.mean(
                [
                    sum(
                        next_logps(policies[0], [*tree.prompt, *tree.completions[side][:t]])[token]
                        for t, token in enumerate(tree.completions[side])
                    )
                    for tree in own
                ]
            )
            for own in pairs
        ]
        assert getattr(found, name) == pytest.approx(by_hand, rel=1e-9)
    without = evaluate(*policies, prompts, batch_size=batch_size)
    assert without.scores.chosen_logp is None
    assert np.array_equal(without.scores.kl, found.kl)


def test_the_reference_against_itself_has_kl_zero(
    policies: tuple[Policy, Policy], ragged: list[PromptTree]
) -> None:
    found = evaluate(policies[1], policies[1], ragged)
    assert found.scores.kl == pytest.approx(np.zeros(7), abs=1e-12)
    assert found.scores.kl_k1 == pytest.approx(np.zeros(7), abs=1e-12)


def test_batches_do_not_matter_and_the_seed_does(
    policies: tuple[Policy, Policy], ragged: list[PromptTree]
) -> None:
    wanted = evaluate(*policies, ragged)
    other = evaluate(*policies, ragged, batch_size=100)
    assert [s.completion for s in other.samples] == [s.completion for s in wanted.samples]
    assert other.scores.kl == pytest.approx(wanted.scores.kl, rel=1e-10)
    again = evaluate(*policies, ragged)
    assert np.array_equal(again.scores.kl, wanted.scores.kl)
    fresh = evaluate(*policies, ragged, seed=1)
    assert [s.completion for s in fresh.samples] != [s.completion for s in wanted.samples]


def test_modes_precision_and_gradients_are_as_before(
    build: Build, ragged: list[PromptTree]
) -> None:
    policy = build(dtype="bfloat16")
    policy.head_dtype = torch.bfloat16
    reference = build(dtype="float32", spread=0.3)
    policy.train()
    inner = policy.model.get_output_embeddings().eval()
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    sum(p.float().square().sum() for p in policy.parameters()).backward()  # type: ignore[union-attr]
    seen = {}

    class Spy(Length):
        def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
            seen["training"] = policy.training or policy.model.training
            seen["dtypes"] = {p.dtype for p in policy.parameters()} | {policy.head_dtype}
            seen["grad"] = torch.is_grad_enabled()
            return super().__call__(prompts, completions)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = evaluate_policy(
            policy, reference, ragged, Spy(), samples=2, max_new_tokens=3, seed=0, stop_ids=[EOS]
        )
    assert seen == {"training": False, "dtypes": {torch.float32}, "grad": False}
    assert policy.training
    assert policy.model.training
    assert not inner.training
    assert policy.head_dtype == torch.bfloat16
    for name, parameter in policy.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, before[name])
        assert parameter.grad is not None
    # The same weights in float32 throughout give the same numbers.
    plain = build(dtype="float32")
    with torch.no_grad():
        for kind in ("parameters", "buffers"):
            pairs = zip(getattr(plain, kind)(), getattr(policy, kind)(), strict=True)
            for own, other in pairs:
                own.copy_(other.float())
    again = evaluate_policy(
        plain, reference, ragged, Length(), samples=2, max_new_tokens=3, seed=0, stop_ids=[EOS]
    )
    assert found.scores.kl == pytest.approx(again.scores.kl, rel=1e-6)


def test_what_has_no_kl_is_refused(
    policies: tuple[Policy, Policy], ragged: list[PromptTree]
) -> None:
    with pytest.raises(ConfigError, match="temperature 0 is deterministic"):
        evaluate(*policies, ragged, spec=SamplingSpec(temperature=0))
    with pytest.raises(ConfigError, match="KL to the reference is infinite"):
        evaluate(*policies, ragged, spec=SamplingSpec(top_k=3))


def test_another_vocabulary_is_refused(
    policies: tuple[Policy, Policy], ragged: list[PromptTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies[1].model.config, "vocab_size", 40)
    with pytest.raises(ConfigError, match="the policy has 32 tokens and the reference 40"):
        evaluate(*policies, ragged)


def test_prompts_need_names_of_their_own(
    policies: tuple[Policy, Policy], ragged: list[PromptTree]
) -> None:
    twice = [ragged[0], replace(ragged[1], id=ragged[0].id)]
    with pytest.raises(DataError, match="needs prompts, got none"):
        evaluate(*policies, [])
    with pytest.raises(DataError, match=r"1 of them repeat, e\.g\. 'p0'"):
        evaluate(*policies, twice)


class Broken(Reward):
    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return self.scores


def test_broken_rewards_are_named() -> None:
    with pytest.raises(DataError, match=r"Broken: scores of shape \(2, 1\) for 2 completions"):
        checked_rewards(Broken(torch.zeros(2, 1)), ["", ""], ["a", "b"])
    with pytest.raises(
        DataError, match=r"Broken: 1 of 2 scores are not finite, e\.g\. nan for 'b'"
    ):
        checked_rewards(Broken(torch.tensor([0.0, torch.nan])), ["", ""], ["a", "b"])


def test_every_tree_and_completion_is_scored_once(ragged: list[PromptTree]) -> None:
    trees = completed(ragged)
    for size, room in itertools.product((1, 2, 5, 100), (1, 3, 1000)):
        parts = list(scoring._parts(trees, size, scoring.MAX_CELLS // room))
        found = [(t.index, c) for part in parts for t in part for c in t.completions]
        assert found == [(t.index, c) for t in trees for c in t.completions]
        for part in parts:
            rows = sum(len(t.completions) for t in part)
            tokens = sum(len(c) for t in part for c in t.completions)
            assert rows <= size
            assert tokens <= room or rows == 1


@pytest.mark.parametrize("which", [0, 1])
def test_an_evaluation_of_weights_that_are_no_numbers_says_so(
    build: Build, ragged: list[PromptTree], which: int
) -> None:
    """The policy's or the reference's; top-k and top-p are not blamed for it."""
    pair = build(), build()
    with torch.no_grad():
        next(pair[which].parameters()).fill_(torch.nan)
    settings: dict[str, Any] = {"samples": 1, "max_new_tokens": 4, "seed": 0, "stop_ids": [EOS]}
    with pytest.raises(FloatingPointError, match=r"weights .*have diverged"):
        evaluate_policy(*pair, ragged, Length(), **settings)


def test_shares_of_the_prompts_are_joined_to_the_whole(
    policies: tuple[Policy, Policy], ragged: list[PromptTree]
) -> None:
    """As ranks evaluate them: a prompt's completions do not depend on the others."""

    def estimate(prompts: Sequence[PromptTree], proxy: Reward | None) -> PointEstimate:
        settings: dict[str, Any] = {"samples": 3, "max_new_tokens": 4, "seed": 0}
        return evaluate_policy(
            *policies, prompts, Length(), **settings, stop_ids=[EOS], proxy=proxy
        )

    for proxy in (None, Length()):
        whole = estimate(ragged, proxy)
        joined = PointEstimate.joined([estimate(ragged[:3], proxy), estimate(ragged[3:], proxy)])
        assert joined.scores.prompt_ids == whole.scores.prompt_ids
        assert (joined.scores.proxy_reward is None) == (proxy is None)
        for name in ("kl", "kl_k1", "reward", "length", "n_samples"):
            ours, theirs = (getattr(each.scores, name) for each in (joined, whole))
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        assert [t.completion for t in joined.samples] == [t.completion for t in whole.samples]
