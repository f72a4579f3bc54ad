"""A row per policy and sampling seed, as the probe would measure them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from alignlab.data.rows import PreferencePair, Prompt
from alignlab.data.sources import write_rows
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.stages.evaluations import evaluate_policies


def test_each_sampling_seed_draws_anew(build: Callable[..., Policy], tmp_path: Path) -> None:
    build("llama", dtype="float32").save(tmp_path / "sft" / "all")
    write_rows(tmp_path / "prompts.jsonl", [Prompt("a", "w3 w4"), Prompt("b", "w5")])
    write_rows(
        tmp_path / "pairs.jsonl",
        [PreferencePair("1", "w3 w4", " w6", " w7 w8"), PreferencePair("2", "w5", " w9", " w6")],
    )
    evaluate_policies(
        out=tmp_path / "out",
        policies={"reference": str(tmp_path / "sft" / "all")},
        reference=str(tmp_path / "sft" / "all"),
        prompts=str(tmp_path / "prompts.jsonl"),
        pairs=str(tmp_path / "pairs.jsonl"),
        reward={"class_path": "alignlab.rewards.rule.Length"},
        max_new_tokens=4,
        repeats=3,
        samples=4,
    )
    rows = read_table(tmp_path / "out" / "evaluations.csv")
    assert [row["sampling_seed"] for row in rows] == ["0", "1", "2"]
    assert {(row["policy"], row["run"]) for row in rows} == {("reference", "sft")}
    assert len({row["entropy"] for row in rows}) == 3
    assert len({row["chosen_logp"] for row in rows}) == 1  # pairs are given, not sampled
    assert all(float(row["kl"]) == pytest.approx(0, abs=1e-6) for row in rows)
