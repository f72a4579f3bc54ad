"""Whether sharing a prompt changes anything: log-probs and gradients with and without."""

from pathlib import Path

import torch
from torch import Tensor

from alignlab.bounds import Count
from alignlab.data.rows import PreferencePair
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTrees, collate
from alignlab.models.layouts import Layout
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table


def compare_layouts(*, out: str | Path, policy: str, pairs: str, limit: Count = 64) -> None:
    """Stage: ``layouts.csv``, one row: how far packed rows differ from a row for each completion.

    ``logp_difference`` is the largest difference of a token's log-prob in nats, and
    ``gradient_difference`` the norm of the difference of the gradients of the mean log-prob over
    the norm of the gradient. Both in float32.

    Args:
        out: Folder to write.
        policy: Its folder.
        pairs: A file of pairs, whose two completions share a prompt.
        limit: How many of them, from the start.
    """
    model = Policy.load_for_eval(policy).float()
    rows, report = read_rows(pairs, PreferencePair, limit=limit)
    trees = collate(tokenise(rows, model.tokenizer, report))
    report.tell()
    (packed, shared), (flat, alone) = (_computed(model, trees, how) for how in ("packed", "flat"))
    row = {
        "pairs": len(trees.prompt_lengths),
        "logp_difference": float((packed - flat).abs().max()),
        "gradient_difference": float((shared - alone).norm() / alone.norm()),
    }
    write_table(Path(out) / "layouts.csv", [row], numbers=".6g")


def _computed(model: Policy, trees: PromptTrees, layout: Layout) -> tuple[Tensor, Tensor]:
    """Log-probs ``[M, T]`` of tokens, and the flattened gradient."""
    model.layout = layout
    weights = [weight.requires_grad_() for weight in model.parameters()]
    scores = model(trees)
    gradients = torch.autograd.grad(scores.logps.mean(), weights)
    return scores.token_logps.detach(), torch.cat([gradient.flatten() for gradient in gradients])
