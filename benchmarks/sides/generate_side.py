"""Hugging Face ``generate``: the rollouts' peer, with its dynamic cache and left padding."""

from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama  # noqa: F401  # counts as an import
from transformers import AutoModelForCausalLM, GenerationConfig

from sides.work import Case, Meter, stop_ids


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Sample, and say how many tokens; the check is greedy, and says which."""
    meter = Meter(case.warmup)
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    stops = stop_ids(case)
    sampled = {} if case.given else {"do_sample": True, "top_k": 0, "top_p": 1.0}
    settings = GenerationConfig(
        **sampled, max_new_tokens=case.completion, eos_token_id=stops, pad_token_id=0
    )
    torch.manual_seed(0)
    tokens = 0
    for call, rows in enumerate(case.batches):
        width = max(len(row["prompt"]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row["prompt"]) :] = torch.tensor(row["prompt"])
        ids, real = (x.repeat_interleave(case.k, 0) for x in (ids, (ids != 0).long()))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
            out = model.generate(ids, attention_mask=real, generation_config=settings)
        meter.step()
        made = out[:, width:]
        kept = made != 0  # padding follows a stop token, and is never drawn
        if call >= case.warmup:
            tokens += int(kept.sum())
        sums = (made * kept).sum(1)[:: case.k].tolist()
        meter.losses += [float(x) for x in sums] if case.given else []
    return meter.result(tokens)
