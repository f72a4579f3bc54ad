"""The stage that evaluates policies several times, with fresh samples each time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.bounds import Count, Seed
from alignlab.evaluation.points import evaluate_policy
from alignlab.evaluation.prompts import load_pairs, load_prompts
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.rewards.build import build_reward


def evaluate_policies(
    *,
    out: str | Path,
    policies: Mapping[str, str | Sequence[str]],
    reference: str,
    prompts: str,
    reward: Mapping[str, Any],
    max_new_tokens: Count,
    pairs: str | None = None,
    repeats: Count = 1,
    samples: Count = 16,
    limit: Count | None = None,
    seed: Seed = 0,
    batch_size: Count = 512,
) -> None:
    """Stage: ``evaluations.csv``, reward and KL of policies, a row per policy and sampling seed.

    Also length, entropy and, with ``pairs``, the mean log-probs of their completions, as a probe
    measures them (see ``FrontierProbe``).

    Args:
        out: Folder to write.
        policies: Name in the table -> folder, or several folders.
        reference: Folder of the policy that KL is measured to.
        prompts: File of prompts.
        reward: ``class_path`` and ``init_args`` of the gold reward.
        max_new_tokens: Tokens of a completion that no end-of-text token ends.
        pairs: File of held-out pairs of these prompts.
        repeats: Sampling seeds: ``seed`` and those after it.
        samples: Completions per prompt.
        limit: How many prompts to use, from the start.
        seed: The first sampling seed.
        batch_size: Completions per batch.
    """
    start = Policy.load_for_eval(reference)
    trees = load_prompts(prompts, start.tokenizer, limit=limit)
    own_pairs = (
        load_pairs(pairs, trees, start.tokenizer, max_new_tokens=max_new_tokens) if pairs else ()
    )
    score = build_reward(reward)
    table = []
    for name, given in policies.items():
        for folder in [given] if isinstance(given, str) else given:
            policy = Policy.load_for_eval(folder)
            for number in range(seed, seed + repeats):
                found = evaluate_policy(
                    policy,
                    start,
                    trees,
                    score,
                    samples=samples,
                    max_new_tokens=max_new_tokens,
                    seed=number,
                    stop_ids=policy.stop_ids,
                    pairs=own_pairs,
                    batch_size=batch_size,
                )
                label = {"policy": name, "run": RunFolder(folder).run_id, "sampling_seed": number}
                table.append({**label, **found.scores.means()})
    write_table(Path(out) / "evaluations.csv", table)
