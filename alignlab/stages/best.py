"""The stage of best-of-n distillation: the best of n completions becomes a demonstration.

Rejection-sampling fine-tuning (Touvron et al. 2023, arXiv:2307.09288, section 3.2.3) is supervised
fine-tuning on these rows. Its fixed point is the best-of-n distribution, ties included: the first
of equally good completions is kept, as the reference drew them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.bounds import Amount, Count, Fraction, Positive, Seed
from alignlab.data.rows import Demonstration
from alignlab.data.sources import write_rows
from alignlab.data.texts import as_completion
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.stages.completed import Completed, Tally


def make_demonstrations(
    *,
    out: Path,
    policy: str,
    prompts: str,
    reward: Mapping[str, Any],
    max_new_tokens: Count,
    n: Count,
    per_prompt: Count = 1,
    temperature: Positive = 1.0,
    top_k: Amount = 0,
    top_p: Fraction = 1.0,
    stop_at_eos: bool = True,
    seed: Seed = 0,
    limit: Count | None = None,
    batch_size: Count = 256,
) -> None:
    """Write ``demonstrations.jsonl`` and ``summary.json``.

    Args:
        out: Folder to write into.
        policy: Folder or hub id of the policy that completes, usually the reference.
        prompts: File or hub id of prompts.
        reward: ``class_path`` and ``init_args`` of the reward that ranks.
        max_new_tokens: Tokens of a completion that does not end by itself; such a completion is
            demonstrated without an end.
        n: Completions of which the best is kept; 1 imitates the policy itself.
        per_prompt: Demonstrations of each prompt, each the best of n of its own.
        temperature: Of sampling.
        top_k: Of sampling; 0 keeps all tokens.
        top_p: Of sampling.
        stop_at_eos: End completions at the end-of-text token; otherwise all have full length.
        seed: The completions are a function of it.
        limit: How many prompts to use, from the start.
        batch_size: Completions sampled at a time.

    Raises:
        ConfigError: An impossible value.
        DataError: No usable prompt, or nothing but empty completions.
    """
    if n < 1 or per_prompt < 1:
        raise ConfigError(f"best-of-n needs n and per_prompt >= 1, got {n} and {per_prompt}.")
    source = Completed(policy, prompts, reward, limit, max_new_tokens, stop_at_eos)
    spec, tally = SamplingSpec(temperature, top_k, top_p), Tally()
    rows: list[Demonstration] = []
    best_sum, empty = 0.0, 0
    for row, _, own in source.draw(n * per_prompt, spec, seed, batch_size, tally):
        places = own.rewards.view(per_prompt, n).argmax(1)  # the first of equals
        for group, place in enumerate(places.tolist()):
            best = group * n + place
            best_sum += float(own.rewards[best])
            if not own.texts[best].strip():
                empty += 1
                continue
            rows.append(
                Demonstration(
                    id=f"{row.id}#{best}",
                    prompt=row.prompt,
                    completion=as_completion(row.prompt, own.texts[best]),
                    ends=own.finished[best],
                )
            )
    if not rows:
        raise DataError(f"{prompts}: all {empty} best completions are empty texts.")
    write_rows(Path(out) / "demonstrations.jsonl", rows)
    summary = tally.summary() | {
        "demonstrations": len(rows),
        "best_reward_mean": best_sum / (tally.prompts * per_prompt),
        "dropped": {"an empty completion": empty},
        "refused_prompts": source.refused,
    }
    (Path(out) / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
