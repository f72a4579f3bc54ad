"""A policy's completions beside the ones people wrote, to be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.bounds import Count, Positive, Seed
from alignlab.data.rows import Demonstration
from alignlab.data.sources import read_rows
from alignlab.data.texts import completion_text
from alignlab.data.tokenise import tokenise
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample


def write_samples(
    *,
    out: str | Path,
    policy: str,
    source: str,
    max_new_tokens: Count,
    limit: Count = 16,
    temperature: Positive = 1.0,
    reward: Mapping[str, Any] | str | None = None,
    seed: Seed = 0,
) -> None:
    """Stage: ``samples.csv``, for each prompt the demonstrated completion and a sampled one.

    Args:
        out: Folder to write.
        policy: Folder of the policy.
        source: A file of demonstrations.
        max_new_tokens: Bound on a sampled completion.
        limit: Rows.
        temperature: Of sampling; 0 is greedy.
        reward: Scores both: ``class_path`` and ``init_args``.
        seed: Of the sampling noise.

    Raises:
        ConfigError: The samples are not what the policy's forward scores (see ``check_samples``).
    """
    rows, report = read_rows(source, Demonstration, limit=limit)
    model = Policy.load_for_eval(policy)
    trees = tokenise(rows, model.tokenizer, report)
    report.tell()
    drawn = sample(
        model,
        trees,
        samples=1,
        max_new_tokens=max_new_tokens,
        spec=SamplingSpec(temperature),
        seed=seed,
        stop_ids=model.stop_ids,
    )
    check_samples(model, drawn, SamplingSpec(temperature))
    prompts, sampled = drawn.texts(model.tokenizer)
    own = [rows[tree.row] for tree in trees]
    shown = [completion_text(row.completion, row.ends) for row in own]
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in own],
        "prompt": prompts,
        "demonstrated": shown,
        "sampled": sampled,
        "ends": [finished[0] for finished in drawn.finished],
    }
    if reward is not None:
        score = build_reward(reward)
        columns["reward_demonstrated"] = checked_rewards(score, prompts, shown).tolist()
        columns["reward_sampled"] = checked_rewards(score, prompts, sampled).tolist()
    write_table(
        Path(out) / "samples.csv",
        [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)],
    )
