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

from sides.work import Case, Meter, batches


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


def logps(model: Any, rows: list[tuple[list[int], list[int]]]) -> Tensor:
    """``[M]`` summed log-probs of completions."""
    ids, real, predicts = padded(rows)
    hidden = model.model(input_ids=ids, attention_mask=real, use_cache=False).last_hidden_state
    targets = ids[:, 1:][predicts[:, :-1]]
    logits = model.lm_head(hidden[predicts]).float()
    token = -F.cross_entropy(logits, targets, reduction="none")
    row = predicts.nonzero()[:, 0]
    return torch.zeros(len(rows)).index_add(0, row, token)


def dpo(model: Any, case: Case) -> Callable[[Any], Tensor]:
    """Eq. 7 of the paper, against a copy of the model."""
    reference = copy.deepcopy(model).requires_grad_(False)

    def loss(rows: Any) -> Tensor:
        pairs = [(row["prompt"], row["completions"][j]) for j in (0, 1) for row in rows]
        with torch.no_grad():
            before = logps(reference, pairs)
        chosen, rejected = (logps(model, pairs) - before).chunk(2)
        return -F.logsigmoid(0.1 * (chosen - rejected)).mean()

    return loss


LOSSES = {"dpo": dpo}


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train and measure."""
    meter = Meter(case.warmup)
    model = AutoModelForCausalLM.from_pretrained(folder / "model").train()
    loss_of = LOSSES[case.objective](model, case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.lr, weight_decay=0.0, fused=True)
    for rows in batches(case):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.losses.append(float(loss))
        meter.step()
    return meter.result(case.batch * case.steps)
