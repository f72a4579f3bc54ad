"""How well policies predict given completions: the loss of fine-tuning, on one set for all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from alignlab.bounds import Count
from alignlab.data.rows import Demonstration, RowReport
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import collate
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.statistics import clustered_se, t_quantile


@torch.no_grad()
def write_likelihoods(
    *,
    out: str | Path,
    policies: Mapping[str, str],
    source: str,
    limit: Count | None = None,
    batch_size: Count = 32,
) -> None:
    """Stage: ``likelihood.csv``, a row per policy: nats a token of the completions in ``source``.

    The interval (95 %) is over rows: ``sum nats / sum tokens`` is a ratio of two sums, whose
    standard error is that of the mean residual ``nats - ratio * tokens`` over the mean of tokens.

    Args:
        out: Folder to write.
        policies: Name in the table -> folder. They must share a tokenizer to be compared.
        source: A file of demonstrations; prompts are conditions, only completions count.
        limit: How many rows to use, from the start.
        batch_size: Rows per forward.
    """
    rows, report = read_rows(source, Demonstration, limit=limit)
    report.tell()
    table = []
    for name, folder in policies.items():
        policy = Policy.load_for_eval(folder)
        trees = tokenise(rows, policy.tokenizer, RowReport(source, refuse="error"))
        nats, tokens = [], []
        for start in range(0, len(trees), batch_size):
            scores = policy(collate(trees[start : start + batch_size]).to(policy.device))
            nats += (-scores.logps).tolist()
            tokens += scores.lengths.tolist()
        ratio = sum(nats) / sum(tokens)
        residuals = np.array(nats) - ratio * np.array(tokens)
        half = t_quantile(len(nats) - 1) * clustered_se(residuals) / float(np.mean(tokens))
        table.append(
            {
                "policy": name,
                "completions": len(nats),
                "tokens": int(sum(tokens)),
                "nats_per_token": ratio,
                "nats_per_token_lo": ratio - half,
                "nats_per_token_hi": ratio + half,
            }
        )
    write_table(Path(out) / "likelihood.csv", table)
