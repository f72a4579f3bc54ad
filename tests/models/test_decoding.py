"""Every architecture is sampled from the distribution that its training forward scores."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, PromptTuning, branches, decoding
from alignlab.models.decoding import decoding_of
from alignlab.rollouts.sampler import sample
from tests.tiny import EOS, FAMILIES

SMALL = {"hidden_size": 16, "num_hidden_layers": 2}
BART = {"d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "rwkv": ("uncached", SMALL | {"attention_hidden_size": 16, "intermediate_size": 24}),
    "openai-gpt": ("uncached", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 80}),
    "mamba": ("by length", SMALL | {"state_size": 4}),
    "bart": ("by length", BART | {"encoder_layers": 2, "max_position_embeddings": 80}),
    "lfm2": (
        "cached",
        FAMILIES["llama"]
        | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
}
Build = Callable[..., Policy]


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, words: Path) -> tuple[str, Policy]:
    """A policy with weights large enough for a peaked distribution, and how it is read on."""
    expected, config = OTHERS[request.param]
    policy = Policy(config={"model_type": request.param} | config, tokenizer=str(words)).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.4, generator=draw)
    return expected, policy


def draw(policy: Policy, prompts: list[PromptTree], **changes: Any) -> Any:
    settings: dict[str, Any] = {"samples": 2, "max_new_tokens": 6, "seed": 0, "stop_ids": (EOS,)}
    return sample(policy, prompts, **settings | {"spec": SamplingSpec()} | changes)


@torch.no_grad()
def test_samples_have_the_log_probs_of_the_training_forward(
    other: tuple[str, Policy], ragged: list[PromptTree], caplog: pytest.LogCaptureFixture
) -> None:
    expected, policy = other
    with caplog.at_level(logging.WARNING):
        drawn = draw(policy, ragged)
        draw(policy, ragged[:1])
    assert decoding_of(policy) == expected
    said = [record.getMessage() for record in caplog.records if "is sampled" in record.message]
    assert len(said) == (0 if expected == "cached" else 1)  # once, not for every call
    scores = policy(collate(drawn.trees))
    found = torch.cat([logps for row in drawn.token_logps for logps in row])
    assert float(found.std()) > 0.5
    assert_close(found, scores.token_logps[scores.mask], rtol=0, atol=1e-4)


def test_samples_do_not_depend_on_company(
    other: tuple[str, Policy], ragged: list[PromptTree]
) -> None:
    _, policy = other
    free = draw(policy, ragged, stop_ids=()).trees
    stops = [row[0][2] for row in (tree.completions for tree in free[:3])]
    whole = [tree.completions for tree in draw(policy, ragged, stop_ids=stops).trees]
    assert len({len(c) for row in whole for c in row}) > 1  # rows are dropped on the way
    again = draw(policy, ragged[::-1], stop_ids=stops, batch_size=4).trees
    assert [tree.completions for tree in again][::-1] == whole


def test_ordinary_decoders_share_prompts(build: Build, words: Path) -> None:
    for family in FAMILIES:
        assert decoding_of(build(family)) == "shared"
    config = {"model_type": "llama"} | FAMILIES["llama"]
    tuned = Policy(config=config, tokenizer=str(words), prompt_tuning=PromptTuning(3))
    assert decoding_of(tuned.eval()) == "cached"


@pytest.fixture
def unshared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are tried out anew, without shared prompts, and forgotten afterwards."""
    monkeypatch.setattr(decoding, "FAST", ("cached", "by length"))
    decoding._FOUND.clear()
    yield
    decoding._FOUND.clear()


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_decoders_keep_the_fast_cache(
    build: Build, unshared: None, ragged: list[PromptTree], family: str
) -> None:
    policy = build(family)
    without = draw(policy, ragged)
    assert decoding_of(policy) == "cached"
    decoding.FAST = ("shared",)  # the fixture puts it back
    decoding._FOUND.clear()
    shared = draw(policy, ragged)
    assert decoding_of(policy) == "shared"
    assert [t.completions for t in shared.trees] == [t.completions for t in without.trees]


@pytest.mark.parametrize("broken", ["padded", "always"])
def test_a_cache_that_is_wrong_is_not_used(
    build: Build,
    unshared: None,
    monkeypatch: pytest.MonkeyPatch,
    ragged: list[PromptTree],
    broken: str,
) -> None:
    """A Llama of which the sampler forgets the positions, of padded prompts or of all."""
    policy = build("llama")
    expected = [tree.completions for tree in draw(policy, ragged).trees]
    decoding._FOUND.clear()
    prefill = decoding._prefill_cache

    def wrong(*args: Any) -> Any:
        state = prefill(*args)
        if broken == "always" or state.seen is not None:
            state.position = state.position + 1
        return state

    monkeypatch.setattr(decoding, "_prefill_cache", wrong)
    assert [tree.completions for tree in draw(policy, ragged).trees] == expected
    assert decoding_of(policy) == ("by length" if broken == "padded" else "uncached")


def test_shared_prompts_that_are_wrong_are_not_used(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attention function is called with the keys of a row's own tokens alone."""
    monkeypatch.setattr(branches, "NAME", "sdpa")
    assert decoding_of(build("llama")) == "cached"
