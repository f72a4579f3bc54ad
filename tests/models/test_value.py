from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.models import AdapterOffReference, Lora, Policy, ScoreModel, StartReference
from alignlab.models.value import ValueFunction

TREES = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,))), PromptTree(1, "b", (1,), ((8,),))])
Build = Callable[..., Policy]


@pytest.fixture
def adapted(build: Build, tmp_path: Path) -> Policy:
    """A policy whose adapters have moved off the base."""
    build("llama", dtype="float64").save(tmp_path / "base")
    policy = Policy(source=str(tmp_path / "base"), dtype="float64", lora=Lora(rank=2))
    move(policy, "default")
    return policy


def move(policy: Policy, adapter: str) -> None:
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if f"lora_B.{adapter}." in name:
                p.fill_(0.1)


def test_a_shared_head_reads_the_policys_states_and_pulls_them_only_if_asked(build: Build) -> None:
    policy = build()
    for detach in (True, False):
        value = ValueFunction(policy, None, detach)
        assert not value(TREES).any()  # it starts at 0
        value.head.weight.data.fill_(0.5)
        value.head.bias.data.fill_(1.0)
        hidden = policy(TREES, value.want).hidden
        assert hidden is not None
        found = value(TREES, hidden)
        assert_close(found, value(TREES))  # computed by itself
        expected = torch.where(TREES.token_mask, 0.5 * hidden.sum(-1) + 1, 0)
        assert_close(found, expected, check_dtype=False, rtol=1e-6, atol=1e-6)
        policy.zero_grad()
        found.sum().backward()
        pulled = any(p.grad is not None and p.grad.any() for p in policy.parameters())
        assert pulled != detach


def test_a_network_of_its_own_knows_nothing_of_the_policy(build: Build, tmp_path: Path) -> None:
    policy = build(dtype="float64")
    policy.save(tmp_path)
    network = ScoreModel(str(tmp_path), dtype="float64")
    value = ValueFunction(policy, network, True)
    assert value.want == ()
    assert_close(value(TREES), network.values(TREES))
    assert len(value.own_parameters()) == len(list(network.parameters()))


def test_adapters_of_its_own_start_from_the_base_and_leave_the_policy_alone(
    adapted: Policy,
) -> None:
    before = adapted(TREES).token_logps
    base = AdapterOffReference(adapted)
    with adapted.model.disable_adapter():
        states = adapted(TREES, ("hidden",)).hidden
    assert states is not None
    value = ValueFunction(adapted, "adapter", True)
    value.head.weight.data.fill_(0.5)
    found = value(TREES)
    expected = torch.where(TREES.token_mask, 0.5 * states.sum(-1), 0)
    assert_close(found, expected, check_dtype=False, rtol=1e-5, atol=1e-5)
    assert_close(adapted(TREES).token_logps, before, rtol=0, atol=0)
    theirs = base.token_logps(TREES)
    move(adapted, "value")
    assert not torch.allclose(value(TREES), found, atol=1e-3)
    assert_close(adapted(TREES).token_logps, before, rtol=0, atol=0)
    assert_close(base.token_logps(TREES), theirs, rtol=0, atol=0)


def test_values_and_policy_learn_through_their_own_adapters(adapted: Policy) -> None:
    value = ValueFunction(adapted, "adapter", True)
    value.head.weight.data.fill_(0.5)
    own = set(map(id, value.own_parameters()))
    policy = [p for p in adapted.parameters() if p.requires_grad and id(p) not in own]
    assert policy
    logps = adapted(TREES).logps.sum()
    values = value(TREES).sum()  # after the policy's forward, before its backward
    logps.backward()
    assert all(p.grad is not None for p in policy)
    assert all(p.grad is None for p in value.own_parameters())
    adapted.zero_grad()
    values.backward()
    assert all(p.grad is not None for p in value.own_parameters())
    assert not any(p.grad is not None and p.grad.any() for p in policy)


@pytest.mark.parametrize("kind", [AdapterOffReference, StartReference])
def test_values_still_learn_after_the_reference_was_read(adapted: Policy, kind: Any) -> None:
    """Or a checkpoint would leave their adapters out."""
    value = ValueFunction(adapted, "adapter", True)
    kind(adapted).token_logps(TREES)
    value(TREES)
    assert all(p.requires_grad for p in value.own_parameters())
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert any(".default." in name for name in trained)
    assert not any(".start." in name for name in trained)


def test_a_saved_policy_has_no_value_adapters(adapted: Policy, tmp_path: Path) -> None:
    logps = adapted(TREES).logps
    ValueFunction(adapted, "adapter", True)
    move(adapted, "value")
    adapted.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "value").exists()
    assert_close(Policy.load(tmp_path / "saved", dtype="float64")(TREES).logps, logps)


def test_adapters_need_lora(build: Build) -> None:
    with pytest.raises(ConfigError, match="needs a policy with LoRA"):
        ValueFunction(build(), "adapter", True)


def test_a_network_with_another_tokenizer_is_refused(build: Build, tmp_path: Path) -> None:
    """It would read other tokens, or none; more tokens than the policy's do not matter."""
    policy = build()
    policy.save(tmp_path)
    network = ScoreModel(str(tmp_path))
    network.tokenizer.add_tokens(["more"])
    ValueFunction(policy, network, True)
    policy.tokenizer = deepcopy(policy.tokenizer)
    policy.tokenizer.add_tokens(["mine"])
    with pytest.raises(ConfigError, match="'mine' is token 32 of one tokenizer, and the other has"):
        ValueFunction(policy, network, True)
    with pytest.raises(ConfigError, match="another tokenizer: 'more' is token 32"):
        ValueFunction(policy_with(network), ScoreModel(str(tmp_path)), True)


def policy_with(network: ScoreModel) -> Any:
    return SimpleNamespace(tokenizer=network.tokenizer)


def test_a_head_is_as_wide_as_the_states_that_it_reads(words: Path) -> None:
    """OPT-350m's layers have 1,024 numbers, and its states are projected to 512."""
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 8, "ffn_dim": 24, "num_hidden_layers": 1}
    more = {"num_attention_heads": 2, "max_position_embeddings": 64, "do_layer_norm_before": False}
    policy = Policy(config={"model_type": "opt"} | sizes | more, tokenizer=str(words))
    value = ValueFunction(policy, None, True)
    hidden = policy(TREES, value.want).hidden
    assert hidden is not None
    assert hidden.shape[-1] == value.head.in_features == 8
    value.head.weight.data.fill_(0.5)
    assert_close(value(TREES), torch.where(TREES.token_mask, 0.5 * hidden.sum(-1), 0))


def test_a_network_of_several_outputs_is_refused(build: Build, tmp_path: Path) -> None:
    policy = build()
    policy.save(tmp_path)
    with pytest.raises(ConfigError, match=r"one number, this network gives 2. Set its outputs to"):
        ValueFunction(policy, ScoreModel(str(tmp_path), outputs=2), True)
