"""The textbook's side: plain PyTorch, a padded row for every completion, logits where they count.

No trainer, no logging. What a careful author of a script of one page would write.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from sides.work import Case, Meter, units_of


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids ``[M, L]``, which are real, and which positions predict a completion's token."""
    width = max(len(p) + len(c) for p, c in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    real, predicts = torch.zeros_like(ids), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(rows):
        n, m = len(prompt), len(prompt) + len(completion)
        ids[i, :m] = torch.tensor(prompt + completion)
        real[i, :m] = 1
        predicts[i, n - 1 : m - 1] = True
    return ids, real, predicts


def token_logps(model: Any, rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """``[N]`` log-probs of all completions' tokens, and the row of each."""
    ids, real, predicts = padded(rows)
    hidden = model.model(input_ids=ids, attention_mask=real, use_cache=False).last_hidden_state
    targets = ids[:, 1:][predicts[:, :-1]]
    logits = model.lm_head(hidden[predicts]).float()
    return -F.cross_entropy(logits, targets, reduction="none"), predicts.nonzero()[:, 0]


def logps(model: Any, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """``[M]`` summed log-probs of completions."""
    tokens, row = token_logps(model, rows)
    return torch.zeros(len(rows)).index_add(0, row, tokens)


def pairs_of(rows: Any) -> list[tuple[list[int], list[int]]]:
    """All chosen ones, then all rejected ones."""
    return [(row["prompt"], row["completions"][j]) for j in (0, 1) for row in rows]


def dpo(model: Any) -> Callable[[Any], Tensor]:
    """Eq. 7 of the paper, against a copy of the model."""
    reference = copy.deepcopy(model).requires_grad_(False)

    def loss(rows: Any) -> Tensor:
        with torch.no_grad():
            before = logps(reference, pairs_of(rows))
        chosen, rejected = (logps(model, pairs_of(rows)) - before).chunk(2)
        return -F.logsigmoid(0.1 * (chosen - rejected)).mean()

    return loss


def simpo(model: Any) -> Callable[[Any], Tensor]:
    """Eq. 6 of the paper."""

    def loss(rows: Any) -> Tensor:
        pairs = pairs_of(rows)
        lengths = torch.tensor([len(completion) for _, completion in pairs])
        chosen, rejected = (logps(model, pairs) / lengths).chunk(2)
        return -F.logsigmoid(2.0 * (chosen - rejected) - 0.5).mean()

    return loss


def sft(model: Any) -> Callable[[Any], Tensor]:
    """The mean over the step's tokens."""

    def loss(rows: Any) -> Tensor:
        tokens, _ = token_logps(model, [(row["prompt"], row["completions"][0]) for row in rows])
        return -tokens.mean()

    return loss


LOSSES = {"dpo": dpo, "simpo": simpo, "sft": sft}


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train and measure."""
    meter = Meter(case.warmup)
    model = AutoModelForCausalLM.from_pretrained(folder / "model").train()
    loss_of = LOSSES[case.objective](model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.lr, weight_decay=0.0, fused=True)
    for rows in case.batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.losses.append(float(loss))
        meter.step()
    return meter.result(units_of(case))
