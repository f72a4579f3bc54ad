"""Floating-point operations and seconds of a step, by hand; and a few real steps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignlab.capacity.copies import Device
from alignlab.capacity.memory import Placement
from alignlab.capacity.setup import Setup, read_setup
from alignlab.capacity.speed import PROBED, estimated, probed, tokens_of_a_step
from tests.capacity.examples import HIDDEN, LAYERS, LINEAR, VOCABULARY, stage

DEVICE = Device("made up", memory=1e9, bandwidth=1e6, half=2e9, single=1e9)
ONE = Placement()


@pytest.fixture
def dpo(tmp_path: Path) -> Setup:
    return read_setup([stage(tmp_path, policy={"layout": "flat"})], (20, 12))


def forward(rows: int, columns: int, scored: int) -> float:
    """Two per multiply-add: linear layers, causal attention (half a square), the head."""
    attention = LAYERS * 4 * HIDDEN * columns**2 / 2
    return rows * (2 * LAYERS * LINEAR * columns + attention) + 2 * VOCABULARY * HIDDEN * scored


def test_a_step_is_a_forward_of_the_reference_and_three_of_the_policy(dpo: Setup) -> None:
    one = forward(8, 31, 8 * 12)  # nothing reads a row's last token
    assert estimated(dpo, ONE, DEVICE, 0.5).seconds == pytest.approx(4 * one / 0.5e9)
    again = estimated(dpo.with_checkpoints(), ONE, DEVICE, 0.5)
    assert again.seconds == pytest.approx(5 * one / 0.5e9)
    without = estimated(replace(dpo, refers=False), ONE, DEVICE, 0.5)
    assert without.seconds == pytest.approx(3 * one / 0.5e9)


def test_devices_share_a_step(dpo: Setup) -> None:
    one, two = (estimated(dpo, Placement("ddp", n), DEVICE).seconds for n in (1, 2))
    assert two == pytest.approx(one / 2)


def test_half_precision_has_its_own_rate(dpo: Setup) -> None:
    mixed = replace(dpo, autocast=torch.bfloat16)
    ratio = estimated(dpo, ONE, DEVICE).seconds / estimated(mixed, ONE, DEVICE).seconds
    assert ratio == pytest.approx(2)


def test_adapters_spare_the_gradients_of_weights(dpo: Setup) -> None:
    adapted = replace(dpo, models=[replace(dpo.trained, lora={"rank": 1})])
    full, less = (estimated(each, ONE, DEVICE).seconds for each in (dpo, adapted))
    assert less < full


def test_a_prompt_counts_once_for_each_completion(dpo: Setup) -> None:
    assert tokens_of_a_step(dpo) == 4 * 2 * (20 + 12)


def test_sampling_reads_the_weights_once_a_token(tmp_path: Path) -> None:
    word = stage(
        tmp_path, "rloo.RLOO", "rollout_data.RolloutData",
        reward={"class_path": "alignlab.rewards.rule.ToySentiment"},
        sampling={"max_new_tokens": 6, "batch_size": 8},
        rows={"rollout_size": 8, "samples_per_prompt": 4, "inner_epochs": 2},
    )  # fmt: skip
    setup = read_setup([word])
    weights = setup.trained.size.weights
    step = estimated(setup, ONE, DEVICE, 1.0)
    prompts = 4 * 32 * 2 * setup.trained.size.matmul / 1e9
    # 16 completions, 8 at a time, half of them for each of two passes.
    assert step.sampling == pytest.approx((6 * weights / 1e6 * 2 + prompts) / 2)
    assert step.seconds > step.sampling


def test_a_probe_trains_a_few_steps_and_leaves_nothing(
    tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": " w3", "chosen": " w4", "rejected": " w5"}] * 4
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    word = stage(tmp_path, policy={"tokenizer": str(words)}, rows={"source": "pairs.jsonl"})
    bound = "[{class_path: alignlab.callbacks.kl_bound.KLBound, init_args: {limit: 3}}]"
    probe = probed([word, f"--trainer.callbacks={bound}"])  # a bound on KL has no evaluations here
    assert 0 < probe.seconds < 60
    assert probe.peak >= 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "stage.yaml"]
    assert PROBED < 10
