"""Nats a token against the model's own logits, token by token."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.stages.likelihood import write_likelihoods
from tests.data.files import jsonl

ROWS = [("w3 w4", " w5 w6 w7"), ("w8", " w9"), ("w10 w11 w12", " w13 w14 w15 w16 w17")]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_mean_over_tokens_and_its_interval(
    build: Callable[..., Policy], tmp_path: Path, batch_size: int
) -> None:
    policy = build("llama", dtype="float32")
    policy.save(tmp_path / "policy")
    source = str(jsonl(tmp_path, [{"prompt": p, "completion": c} for p, c in ROWS]))
    write_likelihoods(
        out=tmp_path / "out",
        policies={"one": str(tmp_path / "policy")},
        source=source,
        batch_size=batch_size,
    )
    nats, tokens = [], []
    for prompt, completion in ROWS:
        start = [1, *(int(word[1:]) for word in prompt.split())]
        ids = [*start, *(int(word[1:]) for word in completion.split()), 2]
        with torch.no_grad():
            logp = policy.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        at = range(len(start), len(ids))
        nats.append(-sum(float(logp[t - 1, ids[t]]) for t in at))
        tokens.append(len(at))
    ratio = sum(nats) / sum(tokens)
    (row,) = read_table(tmp_path / "out" / "likelihood.csv")
    assert (row["policy"], row["completions"], row["tokens"]) == ("one", "3", "12")
    assert float(row["nats_per_token"]) == pytest.approx(ratio, abs=2e-5)
    # sqrt(3 / 2 * sum residual^2) / 3 tokens of mean length 4, and t = 4.302653 with df 2
    squares = sum((a - ratio * n) ** 2 for a, n in zip(nats, tokens, strict=True))
    half = 4.302653 * math.sqrt(3 / 2 * squares) / 3 / 4
    assert float(row["nats_per_token_hi"]) - ratio == pytest.approx(half, abs=2e-4)
    assert ratio - float(row["nats_per_token_lo"]) == pytest.approx(half, abs=2e-4)
