"""The stage that measures best-of-n by learned rewards: KL and gold reward of what they pick."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.bounds import Count, Seed
from alignlab.errors import ConfigError
from alignlab.evaluation.best_of_n import best_of_n
from alignlab.evaluation.points import PLAIN, distinct_ids
from alignlab.evaluation.prompts import load_prompts
from alignlab.evaluation.scoring import evaluating
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.prompt_tables import PromptScores, PromptTable, write_prompt_tables
from alignlab.results.statistics import clustered_se
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward
from alignlab.rollouts.sampler import sample
from alignlab.stages.pool_sampling import POOL_ROLLOUT

TABLE = "best_of_n.parquet"
SAMPLES_PER_N = 2  # with 2 n samples the KL is too low by 0.01 nat, the reward is unbiased


def measure_best_of_n(
    *,
    out: str | Path,
    reference: str,
    prompts: str,
    reward: Mapping[str, Any] | str,
    proxies: Mapping[str, Mapping[str, Any] | str],
    samples: Count,
    max_new_tokens: Count,
    seed: Seed,
    watchdog: Mapping[str, Any] | str | None = None,
    limit: Count | None = None,
    batch_size: Count = 256,
) -> None:
    """Stage: ``best_of_n.parquet``: best of 1, 2, 4, ... of the same samples by each reward model.

    The columns are those of ``points/<run>.parquet``; ``step`` is n, up to half of
    ``samples``, and ``objective`` the name in ``proxies``. With a watchdog also ``watchdog.csv``: a
    row per proxy and n with the gains over the reference on gold and on the watchdog, and their
    standard errors over prompts. Where gold gains and the watchdog does not, best-of-n exploits the
    gold scorer's mistakes.

    Args:
        out: Folder to write.
        reference: Folder or hub id of the policy that completes.
        prompts: The prompts of the evaluation.
        reward: The gold reward.
        proxies: Name of the curve -> reward that picks the best.
        samples: Completions per prompt.
        max_new_tokens: As in the evaluation.
        seed: Of the sampling noise, and the seed of the table.
        watchdog: A second scorer, for which no policy was optimised.
        limit: How many prompts, from the start; as in the evaluation.
        batch_size: Completions per batch.

    Raises:
        ConfigError: A single sample.
    """
    if samples < SAMPLES_PER_N:
        raise ConfigError(f"best-of-n needs samples >= {SAMPLES_PER_N}, got {samples}.")
    policy = Policy.load_for_eval(reference)
    trees = load_prompts(prompts, policy.tokenizer, limit=limit)
    ids = distinct_ids(trees)
    with evaluating(policy):
        drawn = sample(
            policy,
            trees,
            samples=samples,
            max_new_tokens=max_new_tokens,
            spec=PLAIN,
            seed=seed,
            rollout=POOL_ROLLOUT,
            stop_ids=policy.stop_ids,
            batch_size=batch_size,
        )
    texts = drawn.texts(policy.tokenizer)
    shape = (len(ids), samples)

    def scored(spec: Mapping[str, Any] | str) -> Any:
        return checked_rewards(build_reward(spec), *texts).numpy().reshape(shape)

    gold = scored(reward)
    second = None if watchdog is None else scored(watchdog)
    lengths = np.array([[len(c) for c in tree.completions] for tree in drawn.trees], float)
    tables, gains = [], []
    for name, spec in proxies.items():
        ranking = scored(spec)
        for n in [2**k for k in range(64) if SAMPLES_PER_N * 2**k <= samples]:
            best = best_of_n(ranking, gold, n)
            picked = PromptScores(
                prompt_ids=ids,
                kl=best.kl,
                kl_k1=best.kl,
                reward=best.reward,
                proxy_reward=best_of_n(ranking, ranking, n).reward,
                length=best_of_n(ranking, lengths, n).reward,
                n_samples=np.full(len(ids), samples),
            )
            tables.append(
                PromptTable(
                    objective=name, run_id=f"{name}-s{seed}", seed=seed, step=n, scores=picked
                )
            )
            if second is not None:
                row: dict[str, Any] = {"proxy": name, "seed": seed, "n": n}
                for title, values in (("gold", gold), ("watchdog", second)):
                    gain = best_of_n(ranking, values, n).reward - values.mean(1)
                    row |= {f"{title}_gain": float(gain.mean())}
                    row |= {f"{title}_gain_se": clustered_se(gain)}
                gains.append(row)
    write_prompt_tables(Path(out) / TABLE, tables)
    if gains:
        write_table(Path(out) / "watchdog.csv", gains)
