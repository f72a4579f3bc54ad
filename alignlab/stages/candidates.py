"""The stage that makes pools: several samples of the reference for each prompt, with their rewards.

Objectives train on the samples themselves (``QRPO``, ``DDORM``), or compare a completion with the
rewards of the reference's samples of its prompt (``AStarPO``, ``alignlab.rewards.pooled``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.bounds import Count, Seed
from alignlab.data.rows import Candidates
from alignlab.data.sources import write_rows
from alignlab.data.texts import as_completion
from alignlab.errors import DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.stages.completed import Completed, Tally


def make_candidates(
    *,
    out: Path,
    policy: str,
    prompts: str,
    reward: Mapping[str, Any],
    max_new_tokens: Count,
    samples: Count,
    stop_at_eos: bool = True,
    seed: Seed = 0,
    limit: Count | None = None,
    batch_size: Count = 256,
) -> None:
    """Write ``candidates.jsonl``, a row per prompt, and ``summary.json``.

    The samples are from the reference's own distribution, so means over them estimate expectations
    under it. With the seed of ``make_pairs`` they begin with the samples of the pairs.

    Args:
        out: Folder to write into.
        policy: Folder or hub id of the reference.
        prompts: File or hub id of prompts.
        reward: ``class_path`` and ``init_args`` of the reward that rates.
        max_new_tokens: Tokens of a completion that does not end by itself.
        samples: Completions per prompt. Empty ones are left out.
        stop_at_eos: End completions at the end-of-text token; otherwise all have full length.
        seed: The completions are a function of it.
        limit: How many prompts to use, from the start.
        batch_size: Completions sampled at a time.

    Raises:
        ConfigError: An impossible value.
        DataError: No usable prompt, or nothing but empty completions.
    """
    source = Completed(policy, prompts, reward, limit, max_new_tokens, stop_at_eos)
    rows, tally, empty = list[Candidates](), Tally(), 0
    for row, _, own in source.draw(samples, SamplingSpec(), seed, batch_size, tally):
        kept = [k for k, text in enumerate(own.texts) if text.strip()]
        empty += samples - len(kept)
        if kept:
            texts = tuple(as_completion(row.prompt, own.texts[k]) for k in kept)
            ratings = tuple(own.rewards[kept].tolist())
            ends = tuple(own.finished[k] for k in kept)
            rows.append(Candidates(row.id, row.prompt, texts, ratings, ends))
    if not rows:
        raise DataError(f"{prompts}: all {empty} completions are empty texts.")
    write_rows(Path(out) / "candidates.jsonl", rows)
    summary = tally.summary() | {
        "rows": len(rows),
        "dropped": {"an empty completion": empty},
        "refused_prompts": source.refused,
    }
    (Path(out) / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
