"""Virtual tokens: they enter every forward, with a cache or without, and nothing else trains."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import AdapterOffReference, Lora, Policy, PromptTuning
from alignlab.rollouts.sampler import sample
from tests.rollouts.hf import generate
from tests.tiny import EOS

TREES = [PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,))), PromptTree(1, "b", (1,), ((4, 4, 4),))]
GREEDY = SamplingSpec(temperature=0.0)


@pytest.fixture(params=["llama", "gpt2"])
def base(request, build, tmp_path) -> str:
    """The folder of a language model, which is also the name that adapters remember."""
    build(request.param).save(tmp_path / "base")
    return str(tmp_path / "base")


def tuned(base: str, tokens: int = 3) -> Policy:
    return Policy(base, prompt_tuning=PromptTuning(tokens), dtype="float64").eval()


def next_logps(policy: Policy, ids: tuple[int, ...]) -> torch.Tensor:
    """``[V]`` by hand: the vectors, then the tokens' embeddings, through the plain model."""
    vectors = policy.model.prompt_encoder["default"].embedding.weight.double()
    plain = policy.model.get_base_model()
    embeddings = plain.get_input_embeddings()(torch.tensor([ids]))
    logits = plain(inputs_embeds=torch.cat([vectors[None], embeddings], 1)).logits
    return logits[0, -1].double().log_softmax(-1)


@torch.no_grad()
def test_log_probs_are_those_of_the_model_behind_the_vectors(base):
    policy = tuned(base)
    scores = policy(collate(TREES))
    rows = [(tree.prompt, c) for tree in TREES for c in tree.completions]
    for m, (prompt, completion) in enumerate(rows):
        for t, token in enumerate(completion):
            expected = next_logps(policy, prompt + completion[:t])[token]
            assert float(scores.token_logps[m, t]) == pytest.approx(float(expected), abs=1e-6)
    plain = Policy(base, dtype="float64").eval()(collate(TREES)).logps
    assert not torch.allclose(scores.logps, plain)


@torch.no_grad()
def test_cached_sampling_sees_the_vectors_too(base, ragged):
    """Greedy completions of ragged prompts against one uncached forward a token."""
    policy = tuned(base)
    drawn = sample(policy, ragged, samples=1, max_new_tokens=5, spec=GREEDY, seed=0, stop_ids=[EOS])
    for tree, logps in zip(drawn.trees, drawn.token_logps, strict=True):
        ids = tree.prompt
        for t, token in enumerate(tree.completions[0]):
            found = next_logps(policy, ids)
            assert int(found.argmax()) == token
            assert float(logps[0][t]) == pytest.approx(float(found[token]), abs=1e-6)
            ids = (*ids, token)


def test_only_the_vectors_train_and_they_start_as_tokens(base):
    policy = tuned(base, tokens=4)
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert [p.shape[0] for p in trained.values()] == [4]
    policy(collate(TREES)).logps.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())
    assert all(p.grad is None for n, p in policy.named_parameters() if n not in trained)
    words = policy.model.get_base_model().get_input_embeddings().weight
    (vectors,) = trained.values()
    for vector in vectors.detach().double():
        assert float((words - vector).abs().sum(1).min()) < 1e-5
    again, other = tuned(base, tokens=4), Policy(base, prompt_tuning=PromptTuning(4, seed=1))
    assert_close(again.model.prompt_encoder["default"].embedding.weight, vectors)
    assert not torch.equal(other.model.prompt_encoder["default"].embedding.weight, vectors)


@torch.no_grad()
def test_switched_off_they_leave_the_model_they_were_put_on(base):
    policy, batch = tuned(base), collate(TREES)
    reference = AdapterOffReference(policy).token_logps(batch)
    assert_close(reference, Policy(base, dtype="float64").eval()(batch).token_logps)
    assert not torch.allclose(policy(batch).token_logps, reference)


def test_saved_vectors_come_back_and_can_be_trained_on(base, tmp_path):
    policy, batch = tuned(base), collate(TREES)
    policy.save(tmp_path / "tuned")
    again = Policy.load(tmp_path / "tuned", dtype="float64").eval()
    assert_close(again(batch).logps, policy(batch).logps)
    again(batch).logps.sum().backward()
    (vectors,) = (p for p in again.parameters() if p.requires_grad)
    assert vectors.grad is not None
    assert float(vectors.grad.abs().sum()) > 0


def test_what_cannot_be_says_so(base, ragged):
    with pytest.raises(ConfigError, match="tokens >= 1, got 0"):
        PromptTuning(0)
    with pytest.raises(ConfigError, match="use one of them"):
        Policy(base, lora=Lora(), prompt_tuning=PromptTuning())
    policy = tuned(base)
    settings: dict[str, Any] = {"samples": 1, "spec": GREEDY, "seed": 0, "stop_ids": [EOS]}
    with pytest.raises(ConfigError, match="prompt-tuned"):
        generate(policy, ragged, max_new_tokens=2, **settings)
    with pytest.raises(ConfigError, match="context of 64"):  # 6 + 56 + 3 vectors are 65
        sample(policy, ragged, max_new_tokens=56, **settings)
