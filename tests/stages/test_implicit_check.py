"""Implicit rewards of policies against the model's own logits, one completion at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from alignlab.errors import ConfigError
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.stages.implicit_check import check_implicit_rewards
from tests.data.files import jsonl

PAIRS = [
    ("w3", " w4 w5 w6", " w7"),
    ("w3", " w8", " w9 w10"),
    ("w11 w12", " w13 w14", " w15 w16 w18"),
    ("w4 w4 w4", " w5 w6", " w6 w5 w7"),
]


def rewards(policy: Policy) -> list[tuple[float, int]]:
    """Log-prob and tokens of every completion, its end included."""
    found = []
    for prompt, *completions in PAIRS:
        start = [1, *(int(word[1:]) for word in prompt.split())]
        for completion in completions:
            ids = [*start, *(int(word[1:]) for word in completion.split()), 2]
            with torch.no_grad():
                logp = policy.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            at = range(len(start), len(ids))
            found.append((sum(float(logp[t - 1, ids[t]]) for t in at), len(at)))
    return found


@pytest.mark.parametrize("batch_size", [1, 3])
def test_accuracy_and_means_of_each_kind_of_reward(
    build: Callable[..., Policy], tmp_path: Path, batch_size: int
) -> None:
    known = {}
    for seed, name in enumerate(("sft/all", "dpo/beta2-s0", "simpo/s0")):
        policy = build("llama", dtype="float32")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in policy.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        policy.save(tmp_path / name)
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed}))
        known[name] = rewards(policy)
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    check_implicit_rewards(
        out=tmp_path,
        reference=str(tmp_path / "sft" / "all"),
        policies=[[str(tmp_path / "dpo/beta2-s0")], str(tmp_path / "simpo/s0")],
        pairs=str(jsonl(tmp_path, rows)),
        columns={"seed": "seed_everything"},
        batch_size=batch_size,
    )
    table = {(row["policy"], row["reward"]): row for row in read_table(tmp_path / "accuracy.csv")}
    expected = {("sft-all", "mean_logp"): [x / n for x, n in known["sft/all"]]}
    for name, run in (("dpo/beta2-s0", "dpo-beta2-s0"), ("simpo/s0", "simpo-s0")):
        pairs = zip(known[name], known["sft/all"], strict=True)
        expected[run, "log_ratio"] = [x - y for (x, _), (y, _) in pairs]
        expected[run, "mean_logp"] = [x / n for x, n in known[name]]
    assert table.keys() == expected.keys()
    accuracies = set()
    for key, values in expected.items():
        chosen, rejected = values[::2], values[1::2]
        row = table[key]
        right = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / 4
        assert float(row["accuracy"]) == pytest.approx(right)
        assert float(row["chosen"]) == pytest.approx(sum(chosen) / 4, abs=1e-4)
        assert float(row["rejected"]) == pytest.approx(sum(rejected) / 4, abs=1e-4)
        assert float(row["accuracy_lo"]) < right < float(row["accuracy_hi"]) or right in (0, 1)
        assert (row["n"], row["prompts"]) == ("4", "3")
        accuracies.add(right)
    assert len(accuracies) > 1
    assert table["sft-all", "mean_logp"]["seed"] == ""
    assert table["simpo-s0", "log_ratio"]["seed"] == "2"
    assert table["dpo-beta2-s0", "log_ratio"]["stage"] == "dpo"


def test_a_setting_that_no_config_has(build: Callable[..., Policy], tmp_path: Path) -> None:
    build("llama", dtype="float32").save(tmp_path / "sft")
    (tmp_path / "sft" / "config.yaml").write_text("seed_everything: 0\n")
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
    folder = str(tmp_path / "sft")
    with pytest.raises(ConfigError, match=r"has no model\.beta"):
        check_implicit_rewards(
            out=tmp_path,
            reference=folder,
            policies=[folder],
            pairs=str(jsonl(tmp_path, rows)),
            columns={"beta": "model.beta"},
        )
