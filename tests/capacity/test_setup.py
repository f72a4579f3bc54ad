"""What a plan reads off a stage's YAML, without building anything."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from alignlab.capacity.setup import calls_of, read_setup
from alignlab.capacity.trace import Call
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.models.attention import Branches, Piece
from alignlab.training.fit import build
from tests.capacity.examples import PARAMETERS, stage


def test_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError("a policy was built")

    monkeypatch.setattr("alignlab.models.policy.build_model", fails)
    monkeypatch.setattr(torch.nn.Module, "_apply", fails)
    setup = read_setup([stage(tmp_path)])
    assert (setup.objective, setup.total_steps, setup.batch_size) == ("DPO", 10, 4)
    assert setup.trained.size.parameters == PARAMETERS
    assert setup.notes == ["no/such.jsonl is not a file here: planned with max_length tokens a row"]


def test_an_unknown_key_is_refused_as_fit_does(tmp_path: Path) -> None:
    words = [stage(tmp_path, betta=0.1)]
    with pytest.raises(ConfigError) as found:
        read_setup(words)
    with pytest.raises(ConfigError) as wanted:
        build(words)
    assert str(found.value) == str(wanted.value)
    assert "betta" in str(found.value)


@pytest.mark.parametrize(
    ("policy", "reference", "copied", "refers"),
    [
        ({}, "auto", True, True),
        ({}, "cached", False, False),
        ({"lora": {"rank": 4}}, "auto", False, True),
        ({"lora": {"rank": 4}}, "frozen", True, True),
    ],
)
def test_a_reference_is_a_copy_unless_adapters_or_a_cache_spare_it(
    tmp_path: Path, policy: dict, reference: str, copied: bool, refers: bool
) -> None:
    cache = "cache" if reference == "cached" else None
    word = stage(tmp_path, policy=policy, reference=reference, reference_cache=cache)
    setup = read_setup([word])
    assert (setup.reference, setup.refers) == (copied, refers)


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        ({"class_path": "torch.optim.AdamW"}, 2),
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}, 0),
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}, 1),
        ({"class_path": "torch.optim.Adafactor"}, (64 + 128) / (64 * 128)),  # rows and columns
    ],
)
def test_an_optimizer_is_asked_what_it_keeps(tmp_path: Path, optimizer: dict, kept: float) -> None:
    assert read_setup([stage(tmp_path, optimizer=optimizer)]).moments == pytest.approx(kept)


def test_small_data_are_read_for_the_lengths_of_their_rows(tmp_path: Path, words: Path) -> None:
    rows = [
        {"prompt": " w3" * n, "chosen": " w4" * n, "rejected": " w5" * n} for n in (1, 2, 3, 9, 4)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    data = {"source": str(file), "batch_size": 2}
    setup = read_setup([stage(tmp_path, policy={"tokenizer": str(words)}, rows=data)])
    assert sorted(tree.longest for tree in setup.trees) == [4, 6, 8, 10, 20]  # BOS and EOS too
    assert sorted(map(len, setup.steps)) == [1, 2, 2]
    assert setup.notes == []
    stated = read_setup([stage(tmp_path, rows=data)], (7, 5))
    assert {(len(t.prompt), *map(len, t.completions)) for t in stated.trees} == {(7, 5, 5)}


def test_completions_of_a_rollout_have_their_full_length(tmp_path: Path) -> None:
    data = {"rollout_size": 8, "samples_per_prompt": 3}
    reward = {"class_path": "alignlab.rewards.rule.ToySentiment"}
    word = stage(
        tmp_path, "rloo.RLOO", "rollout_data.RolloutData",
        reward=reward, sampling={"max_new_tokens": 6}, rows=data,
    )  # fmt: skip
    setup = read_setup([word])
    assert {(len(t.prompt), *map(len, t.completions)) for t in setup.trees} == {(32, 6, 6, 6)}
    assert setup.rollout is not None
    assert setup.rollout["rollout_size"] == 8


def test_the_model_inside_of_a_reward_is_a_reward_model(tmp_path: Path) -> None:
    LlamaConfig(hidden_size=32, num_labels=1).save_pretrained(tmp_path / "rm")
    scored = {"class_path": "alignlab.rewards.model.ModelReward",
              "init_args": {"path": str(tmp_path / "rm")}}  # fmt: skip
    best = {"class_path": "alignlab.rewards.pooled.BestOfN",
            "init_args": {"n": 4, "pool": "none.jsonl", "reward": scored}}  # fmt: skip
    for reward in (scored, best):
        word = stage(
            tmp_path, "rloo.RLOO", "rollout_data.RolloutData",
            reward=reward, sampling={"max_new_tokens": 6}, rows={"rollout_size": 8},
        )  # fmt: skip
        found = read_setup([word]).role("reward")
        assert found is not None
        assert found.config.hidden_size == 32


def test_rows_are_cut_as_the_model_cuts_them(tmp_path: Path) -> None:
    trees = [PromptTree(i, "", (0,) * 20, ((0,) * 4, (0,) * 2)) for i in range(2)]
    branches = Branches((Piece(48, block=((20, 3, 1), (20, 3, 1))),))
    for layout, call in (("flat", Call(4, 23)), ("packed", Call(1, 48, branches))):
        spec = read_setup([stage(tmp_path, policy={"layout": layout})]).trained
        assert calls_of(spec, trees, gpu=True) == ((call,), 12)


def test_windows_keep_rows_flat(tmp_path: Path) -> None:
    config = {"model_type": "mistral", "sliding_window": 8, "vocab_size": 64, "hidden_size": 16,
              "num_attention_heads": 2, "num_hidden_layers": 2}  # fmt: skip
    spec = read_setup([stage(tmp_path, policy={"layout": "packed", "config": config})]).trained
    calls, _ = calls_of(spec, [PromptTree(0, "", (0,), ((0,), (0,)))], gpu=True)
    assert calls == (Call(2, 1),)


def test_prompt_tuning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not support prompt_tuning"):
        read_setup([stage(tmp_path, policy={"prompt_tuning": {"tokens": 4}})])


@pytest.mark.parametrize(
    ("trainer", "strategy", "devices"),
    [
        ({}, "auto", 1),
        ({"devices": 2, "num_nodes": 2, "strategy": "ddp"}, "ddp", 4),
        ({"devices": [0, 1], "strategy": "fsdp"}, "fsdp", 2),
    ],
)
def test_where_a_config_runs(tmp_path: Path, trainer: dict, strategy: str, devices: int) -> None:
    setup = read_setup([stage(tmp_path, trainer=trainer)])
    assert (setup.strategy, setup.devices) == (strategy, devices)
