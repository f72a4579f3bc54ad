"""The stage that measures which of two held-out completions trained policies prefer.

A policy has an implicit reward. DPO's is the log-ratio to the reference (Rafailov et al. 2023,
arXiv:2305.18290, Eq. 5, up to beta and a constant of the prompt), SimPO's the mean log-probability
per token (Meng et al. 2024, arXiv:2405.14734, Eq. 4), which needs no reference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.bounds import Count
from alignlab.data.rows import PreferencePair, prompt_key
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import Truncation, tokenise
from alignlab.data.trees import PromptTree, in_length_order
from alignlab.evaluation.scoring import evaluating
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.stages.agreement import agreement
from alignlab.stages.reward_check import kept_rows, run_settings


def check_implicit_rewards(
    *,
    out: str | Path,
    reference: str,
    policies: Sequence[str | Sequence[str]],
    pairs: str,
    columns: Mapping[str, str] | None = None,
    max_length: Count | None = None,
    truncation: Truncation = "drop",
    batch_size: Count = 32,
) -> None:
    """Stage: write ``accuracy.csv``, how often policies' own rewards agree with people's choices.

    Two rows a policy: ``reward`` is ``log_ratio`` (to the reference, of the whole completion) or
    ``mean_logp`` (per token, of the policy alone); the reference itself has the second. With
    Wilson's 95 % interval, in which pairs of one prompt are not counted as independent. ``chosen``
    and ``rejected`` are mean rewards in nats: a log-ratio under 0 says that training made such
    completions less likely.

    Args:
        out: Folder to write.
        reference: Folder of the policy that the others were trained from.
        policies: Folders of trained policies, or lists of them; with the reference's tokenizer.
        pairs: A file of pairs.
        columns: Column of the table -> dotted key in the ``config.yaml`` beside each policy.
        max_length: As in training.
        truncation: As in training.
        batch_size: Pairs per forward.
    """
    folders = [f for item in policies for f in ([item] if isinstance(item, str) else item)]
    rows, report = read_rows(pairs, PreferencePair)
    start = Policy.load_for_eval(reference)
    trees = tokenise(rows, start.tokenizer, report, max_length=max_length, truncation=truncation)
    report.tell()
    prompts = [prompt_key(row) for row in kept_rows(rows, trees)]
    before, lengths = _logps(start, trees, batch_size)
    table: list[dict[str, Any]] = []

    def tell(folder: str, settings: Mapping[str, Any], kinds: Mapping[str, Tensor]) -> None:
        own = RunFolder(folder)
        for kind, found in kinds.items():
            agreed = agreement((found[:, 0] - found[:, 1]).numpy(), prompts)
            table.append(
                {
                    "policy": own.long_name,
                    "stage": own.stage,
                    **settings,
                    "reward": kind,
                    "n": agreed.pairs,
                    "prompts": agreed.prompts,
                    "accuracy": agreed.accuracy,
                    "accuracy_lo": agreed.interval.lo,
                    "accuracy_hi": agreed.interval.hi,
                    "chosen": float(found[:, 0].mean()),
                    "rejected": float(found[:, 1].mean()),
                }
            )

    tell(reference, dict.fromkeys(columns or {}, ""), {"mean_logp": before / lengths})
    for folder in folders:
        logps, _ = _logps(Policy.load_for_eval(folder), trees, batch_size)
        kinds = {"log_ratio": logps - before, "mean_logp": logps / lengths}
        tell(folder, run_settings(folder, columns or {}), kinds)
    write_table(Path(out) / "accuracy.csv", table)


def _logps(policy: Policy, trees: Sequence[PromptTree], batch_size: int) -> tuple[Tensor, Tensor]:
    """``[N, 2]`` float64 log-probs of each pair's completions, and ``[N, 2]`` their lengths."""
    logps = torch.zeros(len(trees), 2, dtype=torch.float64)
    lengths = torch.zeros_like(logps)
    with evaluating(policy):
        for places, batch in in_length_order(trees, 2 * batch_size):
            scores = policy(batch.to(policy.device))
            logps[places] = scores.logps.double().cpu().view(-1, 2)
            lengths[places] = scores.lengths.double().cpu().view(-1, 2)
    return logps, lengths
