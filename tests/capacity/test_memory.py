"""Memory by part, where it can be counted by hand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignlab.capacity import memory
from alignlab.capacity.memory import PARTS, Placement, memory_of, micro_batch, micro_batches
from alignlab.capacity.models import ModelSpec
from alignlab.capacity.setup import Setup, read_setup
from alignlab.errors import ConfigError
from tests.capacity.examples import ADAPTERS, BLOCK, CONFIG, LAYERS, PARAMETERS, VOCABULARY, stage

PLAIN, DDP, FSDP = Placement(), Placement("ddp", 2), Placement("fsdp", 2)


@pytest.fixture
def dpo(tmp_path: Path) -> Setup:
    return read_setup([stage(tmp_path)])


def test_a_frozen_reference_is_a_copy_of_the_weights(dpo: Setup) -> None:
    parts = memory_of(dpo, PLAIN)
    assert tuple(parts) == PARTS
    assert parts["weights"] == parts["reference"] == parts["gradients"] == 4 * PARAMETERS
    assert parts["optimizer"] == 2 * 4 * PARAMETERS
    assert parts["reward model"] == parts["value"] == parts["KV cache"] == parts["gathered"] == 0


def test_adapters_train_without_a_second_model(tmp_path: Path) -> None:
    parts = memory_of(read_setup([stage(tmp_path, policy={"lora": {"rank": 4}})]), PLAIN)
    assert parts["weights"] == 4 * (PARAMETERS + ADAPTERS)
    assert parts["gradients"] == 4 * ADAPTERS
    assert parts["optimizer"] == 8 * ADAPTERS
    assert parts["reference"] == 0


def test_ddp_holds_gradients_twice_and_shards_hold_their_part(dpo: Setup) -> None:
    ddp, fsdp = memory_of(dpo, DDP), memory_of(dpo, FSDP)
    assert ddp["gradients"] == 2 * 4 * PARAMETERS
    assert ddp["weights"] == 4 * PARAMETERS
    for part in ("weights", "reference"):
        assert fsdp[part] == 4 * PARAMETERS / 2
    assert fsdp["optimizer"] == 4 * PARAMETERS
    rest = PARAMETERS - LAYERS * BLOCK
    # Two layers, one's gradients, and of policy and reference what is in no layer.
    assert fsdp["gathered"] == 4 * (3 * BLOCK + 2 * rest)


def test_micro_batches_are_shared_by_the_devices(dpo: Setup) -> None:
    assert len(micro_batch(dpo, 1)) == 4
    assert len(micro_batch(dpo, 2)) == 2
    smaller = replace(dpo, micro_batch_size=1)
    assert len(micro_batch(smaller, 2)) == 1
    assert micro_batches(smaller, 2) == 2
    with pytest.raises(ConfigError, match="batch_size 4 is not a multiple"):
        micro_batch(dpo, 3)


def test_accumulated_gradients_stay_through_the_backward_pass(dpo: Setup) -> None:
    """Weights dominate here: with gradients of two micro-batches one more weight is alive."""
    one = replace(dpo, batch_size=1, steps=[[0]])
    accumulated = replace(dpo, batch_size=2, steps=[[0, 1]], micro_batch_size=1)
    assert sum(memory_of(accumulated, PLAIN).values()) >= sum(memory_of(one, PLAIN).values())


@pytest.fixture
def ppo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    word = stage(
        tmp_path, "ppo.PPO", "rollout_data.RolloutData",
        reward={"class_path": "alignlab.rewards.rule.ToySentiment"},
        sampling={"max_new_tokens": 40, "batch_size": 16},
        rows={"rollout_size": 512, "samples_per_prompt": 2},
    )  # fmt: skip
    return read_setup([word])


def test_the_cache_of_keys_and_values(ppo: Setup) -> None:
    own = {**rollout(ppo), "batch_size": 4096, "score_batch_size": 1}
    parts = memory_of(replace(ppo, rollout=own), PLAIN)
    rows = 512 * 2  # no more than a phase has
    assert parts["KV cache"] == 2 * LAYERS * rows * (32 + 40) * 1 * 8 * 4
    assert parts["logits"] == 3 * rows * VOCABULARY * 4
    assert parts["activations"] == 0
    shared = memory_of(replace(ppo, rollout=own), FSDP)
    assert shared["KV cache"] == parts["KV cache"] / 2
    assert shared["gathered"] == 4 * PARAMETERS  # whole while it samples
    mixed = memory_of(replace(ppo, rollout=own, autocast=torch.bfloat16), FSDP)
    assert mixed["gathered"] == 4 * PARAMETERS - 2 * LAYERS * BLOCK  # layers in bfloat16


def test_scoring_a_phase_may_take_more_than_the_rest(ppo: Setup) -> None:
    few = replace(ppo, rollout={**rollout(ppo), "score_batch_size": 1})
    many = replace(ppo, rollout={**rollout(ppo), "score_batch_size": 512})
    assert sum(memory_of(many, PLAIN).values()) > 2 * sum(memory_of(few, PLAIN).values())


def rollout(setup: Setup) -> Mapping:
    assert setup.rollout is not None
    return setup.rollout


def test_value_and_reward_models_are_parts(ppo: Setup) -> None:
    config = ppo.trained.config
    value = replace(ppo.trained, role="value", scorer=True)
    reward = replace(ppo.trained, role="reward", scorer=True, trained=False)
    parts = memory_of(replace(ppo, models=[ppo.trained, value, reward]), FSDP)
    assert parts["value"] == pytest.approx(value.size.weights / 2)
    assert parts["reward model"] == reward.size.weights  # whole on every device
    both = ppo.trained.size.gradients + value.size.gradients
    assert parts["optimizer"] == pytest.approx(2 * both / 2)
    assert config.vocab_size == VOCABULARY


def test_an_attention_function_has_its_own_activations(tmp_path: Path) -> None:
    """Eager attention holds a matrix of weights for each head; one in a fused kernel does not."""
    eager, fused = (
        memory_of(read_setup([stage(tmp_path, policy=rows | {"layout": "flat"})]), PLAIN)
        for rows in ({"attn_implementation": "eager"}, {"attn_implementation": "sdpa"})
    )
    assert eager["activations"] > 1.2 * fused["activations"]


def test_checkpointing_trades_activations(dpo: Setup) -> None:
    long = replace(dpo, trees=dpo.trees * 4, steps=[list(range(16))], batch_size=16)
    plain, again = (
        memory_of(each, PLAIN)["activations"] for each in (long, long.with_checkpoints())
    )
    assert again < plain / 1.5


def test_a_deep_model_is_continued_from_a_few_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = {"config": CONFIG | {"num_hidden_layers": 14}}
    setup = read_setup([stage(tmp_path, policy=deep)])
    continued = memory_of(setup, PLAIN)
    monkeypatch.setattr(memory, "TRACED", 14)
    memory._in_depth.cache_clear()
    assert continued == pytest.approx(memory_of(setup, PLAIN), rel=1e-6)


@pytest.mark.slow
def test_a_peak_that_moves_with_depth_is_followed(
    ppo: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few layers hold most when logits are made, many in the backward pass of the value."""
    config = CONFIG | {"num_hidden_layers": 34, "vocab_size": 4096}
    deep = replace(ppo.trained, config=type(ppo.trained.config)(**config))
    value = replace(deep, role="value", scorer=True)
    setup = replace(ppo, models=[deep, value], batch_size=4, steps=[list(range(4))])
    continued = memory_of(setup, PLAIN)
    monkeypatch.setattr(memory, "TRACED", 34)
    memory._in_depth.cache_clear()
    assert continued == pytest.approx(memory_of(setup, PLAIN), rel=1e-6)


def test_4_bits_are_unpacked_one_layer_at_a_time(dpo: Setup) -> None:
    adapted: ModelSpec = dpo.trained.with_lora()
    plain, packed = (
        memory_of(replace(dpo, models=[spec], reference=False), PLAIN)
        for spec in (adapted, replace(adapted, double=True))
    )
    assert packed["weights"] < plain["weights"]
    assert packed["activations"] - plain["activations"] == 4 * 16 * 24
