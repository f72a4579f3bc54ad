import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts import sampler
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples
from tests.rollouts.hf import generate
from tests.tiny import EOS, FAMILIES, VOCABULARY

GREEDY = SamplingSpec(temperature=0)
PLAIN = SamplingSpec()
Build = Callable[..., Policy]


def draw(policy: Any, prompts: list[PromptTree], **changes: Any) -> Samples:
    settings: dict[str, Any] = {
        "samples": 3,
        "max_new_tokens": 12,
        "spec": PLAIN,
        "seed": 0,
        "stop_ids": (EOS,),
    }
    return sample(policy, prompts, **settings | changes)


def ids(samples: Samples) -> list[tuple[tuple[int, ...], ...]]:
    return [tree.completions for tree in samples.trees]


def flat(samples: Samples) -> torch.Tensor:
    return torch.cat([logps for row in samples.token_logps for logps in row])


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_generate_token_for_token(
    family: str, build: Build, ragged: list[PromptTree]
) -> None:
    policy = build(family)
    # A token that greedy decoding meets early, so that rows stop at different steps.
    free = draw(policy, ragged, samples=1, spec=GREEDY, stop_ids=())
    stops = {c[4] for tree in free.trees[:3] for c in tree.completions}
    settings: dict[str, Any] = {"samples": 1, "max_new_tokens": 12, "seed": 0}
    for stop_ids in ((), tuple(stops)):
        ours = sample(policy, ragged, spec=GREEDY, stop_ids=stop_ids, **settings)
        theirs = generate(policy, ragged, spec=GREEDY, stop_ids=stop_ids, **settings)
        assert ids(ours) == ids(theirs)
        assert ours.finished == theirs.finished
        assert_close(flat(ours).float(), flat(theirs), atol=1e-5, rtol=0)
    assert any(f for row in ours.finished for f in row)
    lengths = {len(c) for tree in ours.trees for c in tree.completions}
    assert len(lengths) > 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "spec", [PLAIN, SamplingSpec(temperature=0.7, top_k=9, top_p=0.9)], ids=["plain", "cut"]
)
def test_logps_are_those_of_the_training_forward(
    family: str, spec: SamplingSpec, build: Build, ragged: list[PromptTree]
) -> None:
    policy = build(family)
    drawn = draw(policy, ragged, spec=spec)
    with torch.no_grad():
        scores = policy(collate(drawn.trees), spec=spec)
    assert_close(flat(drawn), scores.token_logps[scores.mask], atol=1e-10, rtol=0)
    assert flat(drawn).dtype == torch.float64


@pytest.mark.parametrize("family", FAMILIES)
def test_values_are_those_of_the_training_forwards_states(
    family: str, build: Build, ragged: list[PromptTree]
) -> None:
    policy = build(family)
    head = torch.nn.Linear(policy.model.config.hidden_size, 1, dtype=torch.float64)
    drawn = draw(policy, ragged, value=lambda hidden: head(hidden)[:, 0])
    with torch.no_grad():
        scores = policy(collate(drawn.trees), want=("hidden",))
    assert scores.hidden is not None
    own = torch.cat([values for row in drawn.values for values in row])
    assert_close(own, head(scores.hidden)[..., 0][scores.mask].detach(), atol=1e-10, rtol=0)
    assert draw(policy, ragged).values == []


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_do_not_depend_on_how_they_are_batched(
    family: str, build: Build, ragged: list[PromptTree], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build(family)
    whole = draw(policy, ragged, batch_size=64)
    for batch_size, share in product((1, 4, 7), (0.01, 2.0)):
        monkeypatch.setattr(sampler, "COMPACT_SHARE", dict.fromkeys(sampler.COMPACT_SHARE, share))
        again = draw(policy, ragged, batch_size=batch_size)
        assert ids(again) == ids(whole)
        assert again.finished == whole.finished
        assert_close(flat(again), flat(whole), atol=1e-10, rtol=0)
    backwards = draw(policy, ragged[::-1], batch_size=5)
    assert ids(backwards)[::-1] == ids(whole)
    assert ids(draw(policy, ragged[2:3])) == ids(whole)[2:3]
    fewer = draw(policy, ragged, samples=2)
    assert ids(fewer) == [row[:2] for row in ids(whole)]


def test_float32_differs_in_rounding_only(build: Build, ragged: list[PromptTree]) -> None:
    policy = build("llama", dtype="float32", spread=0.2)
    prompts = [replace(t, index=t.index + 100 * i) for i in range(8) for t in ragged]
    whole = draw(policy, prompts, batch_size=256)
    again = draw(policy, prompts[::-1], batch_size=5)
    differ, total, worst = 0, 0, 0.0
    for one, two in zip(whole.trees, again.trees[::-1], strict=True):
        for k, (a, b) in enumerate(zip(one.completions, two.completions, strict=True)):
            total += len(a)
            agree = next((t for t, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            differ += 0 if agree is None and len(a) == len(b) else len(a) - (agree or 0)
            p, n = whole.trees.index(one), agree if agree is not None else min(len(a), len(b))
            gap = whole.token_logps[p][k][:n] - again.token_logps[len(prompts) - 1 - p][k][:n]
            worst = max(worst, float(gap.abs().max()) if n else 0.0)
    print(f"float32: {differ} of {total} tokens differ, log-probs by at most {worst:.1e}")
    assert worst < 1e-5
    assert differ / total < 0.01


def test_noise_is_named_by_seed_rollout_prompt_and_sample(
    build: Build, ragged: list[PromptTree]
) -> None:
    policy = build()
    one = ids(draw(policy, ragged))
    torch.manual_seed(1)
    assert ids(draw(policy, ragged)) == one
    assert ids(draw(policy, ragged, seed=1)) != one
    assert ids(draw(policy, ragged, rollout=1)) != one
    # The same prompt under two names, and two samples of one prompt, get different noise.
    twins = draw(policy, [ragged[2], replace(ragged[2], index=7)])
    assert ids(twins)[0] != ids(twins)[1]
    assert len(set(ids(twins)[0])) == 3


def test_a_sample_worked_out_token_by_token(build: Build, ragged: list[PromptTree]) -> None:
    """Add up the probabilities of full forwards until they pass the token's own noise."""
    policy = build()
    drawn = draw(policy, ragged, seed=9, rollout=4, batch_size=4, stop_ids=())
    for tree in drawn.trees[1:4]:
        text = list(tree.prompt)
        for t, token in enumerate(tree.completions[2]):
            noise = float(uniform(9, 4, torch.tensor([tree.index]), torch.tensor([2]), t))
            with torch.no_grad():
                probs = policy.model(torch.tensor([text])).logits[0, -1].softmax(0).tolist()
            expected, passed = 0, probs[0]
            while passed < noise:
                expected += 1
                passed += probs[expected]
            assert token == expected
            text.append(token)


def test_stop_tokens(build: Build, ragged: list[PromptTree]) -> None:
    policy = build(spread=0.05)  # almost uniform: each token in one of 32
    stops = (EOS, 5, 9, 20)
    drawn = draw(policy, ragged, samples=6, max_new_tokens=8, stop_ids=stops)
    lengths = set()
    for tree, finished in zip(drawn.trees, drawn.finished, strict=True):
        for completion, done in zip(tree.completions, finished, strict=True):
            assert not set(completion[:-1]) & set(stops)
            assert done == (completion[-1] in stops)
            assert done or len(completion) == 8
            lengths.add(len(completion))
    assert len(lengths) > 4
    # With nothing to stop at, a stop token is a token like any other and the rest stays the same.
    endless = draw(policy, ragged, samples=6, max_new_tokens=8, stop_ids=())
    assert all(len(c) == 8 for tree in endless.trees for c in tree.completions)
    assert not any(done for row in endless.finished for done in row)
    for short, long in zip(drawn.trees, endless.trees, strict=True):
        assert all(
            b[: len(a)] == a for a, b in zip(short.completions, long.completions, strict=True)
        )


def test_top_k_and_top_p_leave_out_the_rest(build: Build) -> None:
    policy = build()
    prompt = PromptTree(0, "p", (1, 8, 4), ())
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt.prompt])).logits[0, -1]
    probs = logits.softmax(0).sort(descending=True)
    nucleus = int((probs.values.cumsum(0) < 0.6).sum()) + 1
    assert 1 < nucleus < VOCABULARY - 5
    for spec, kept in ((SamplingSpec(top_k=4), 4), (SamplingSpec(top_p=0.6), nucleus)):
        drawn = draw(policy, [prompt], samples=600, max_new_tokens=1, spec=spec, stop_ids=())
        seen = {c[0] for c in drawn.trees[0].completions}
        assert seen == set(probs.indices[:kept].tolist())


def test_frequencies_are_the_models_probabilities(build: Build) -> None:
    """All two-token completions are enumerated from full forwards without a cache."""
    policy = build(spread=0.2)
    prompt = (1, 6)
    spec = SamplingSpec(temperature=1.3, top_k=5)

    def next_probs(*tokens: int) -> torch.Tensor:
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
        out = torch.zeros(VOCABULARY, dtype=torch.float64)
        best = logits.argsort(descending=True)[:5]
        out[best] = (logits[best] / 1.3).exp() / (logits[best] / 1.3).exp().sum()
        return out

    first = next_probs()
    expected: dict[tuple[int, ...], float] = {}
    for a in first.nonzero()[:, 0].tolist():
        if a == EOS:
            expected[(a,)] = float(first[a])
            continue
        second = next_probs(a)
        for b in second.nonzero()[:, 0].tolist():
            expected[a, b] = float(first[a] * second[b])
    n = 20_000
    drawn = draw(
        policy,
        [PromptTree(0, "p", prompt, ())],
        samples=n,
        max_new_tokens=2,
        spec=spec,
        batch_size=4096,
    )
    counts: dict[tuple[int, ...], int] = dict.fromkeys(expected, 0)
    for completion in drawn.trees[0].completions:
        counts[completion] += 1
    statistic = chisquare(list(counts.values()), [n * p for p in expected.values()])
    assert min(expected.values()) * n > 5
    assert statistic.pvalue > 1e-3
    for completion, logps in zip(drawn.trees[0].completions, drawn.token_logps[0], strict=True):
        assert float(logps.sum()) == pytest.approx(math.log(expected[completion]), abs=1e-6)


def test_generate_samples_the_same_distribution(build: Build) -> None:
    """The check keeps all 32 tokens (the library's own default would keep 50 of a larger set)."""
    policy = build(spread=0.05)
    prompt = PromptTree(0, "p", (1, 6), ())
    drawn = generate(
        policy, [prompt], samples=2000, max_new_tokens=1, spec=PLAIN, seed=3, stop_ids=()
    )
    with torch.no_grad():
        probs = policy.model(torch.tensor([prompt.prompt])).logits[0, -1].double().softmax(0)
    counts = torch.bincount(torch.tensor(drawn.trees[0].completions)[:, 0], minlength=VOCABULARY)
    assert chisquare(counts.numpy(), (2000 * probs).numpy()).pvalue > 1e-3


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's, not ours
def test_adapters_count(build: Build, ragged: list[PromptTree]) -> None:
    policy = build()
    plain = ids(draw(policy, ragged))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        policy.model = get_peft_model(policy.model, adapter).double()
    adapted = draw(policy, ragged, spec=GREEDY)
    assert ids(adapted) != plain
    theirs = generate(
        policy, ragged, samples=3, max_new_tokens=12, spec=GREEDY, seed=0, stop_ids=(EOS,)
    )
    assert ids(adapted) == ids(theirs)


def test_modes_are_restored_and_results_can_be_trained_on(
    build: Build, ragged: list[PromptTree]
) -> None:
    policy = build("gpt2")
    policy.train()
    policy.model.transformer.h[0].eval()
    modes = [module.training for module in policy.modules()]
    for module in policy.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    drawn = draw(policy, ragged)
    assert [module.training for module in policy.modules()] == modes
    policy.eval()
    assert ids(draw(policy, ragged)) == ids(drawn)  # no dropout while sampling
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (flat(drawn) * weight).sum().backward()
    assert_close(weight.grad, flat(drawn).sum())


def test_texts_keep_their_spaces(build: Build) -> None:
    policy = build()
    prompts = [PromptTree(0, "a", (1, 4, 5), ()), PromptTree(1, "b", (1,), ())]
    trees = [
        replace(prompts[0], completions=((6, 7, EOS), (8,))),
        replace(prompts[1], completions=((9, EOS),)),
    ]
    texts = Samples(trees, [], []).texts(policy.tokenizer)
    assert texts == ([" w4 w5", " w4 w5", ""], [" w6 w7", " w8", " w9"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 59}, "'p2' has 6 tokens; .*max_new_tokens=59 it exceeds .* of 64"),
        ({"max_new_tokens": 0}, "max_new_tokens >= 1, got 0"),
        ({"samples": 0}, "samples >= 1, got 0"),
        ({"batch_size": 0}, "batch_size >= 1, got 0"),
    ],
)
def test_impossible_settings(
    changes: dict[str, int], message: str, build: Build, ragged: list[PromptTree]
) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(build("gpt2"), ragged, **changes)


def test_prompts_need_indices_of_their_own(build: Build, ragged: list[PromptTree]) -> None:
    twins = [ragged[0], replace(ragged[1], index=ragged[0].index)]
    with pytest.raises(ConfigError, match="'p0' and 'p1' both have index 3"):
        draw(build(), twins)


def test_no_prompts_no_samples(build: Build) -> None:
    assert draw(build(), []) == Samples([], [], [])


@pytest.mark.parametrize("spec", [PLAIN, GREEDY, SamplingSpec(0.7, top_k=3)], ids=str)
def test_a_model_that_has_diverged_is_not_sampled(
    build: Build, ragged: list[PromptTree], spec: SamplingSpec
) -> None:
    policy = build()
    with torch.no_grad():
        next(policy.parameters()).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="its weights have diverged"):
        draw(policy, ragged, spec=spec)
