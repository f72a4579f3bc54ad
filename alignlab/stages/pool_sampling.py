"""Drawing the oracle's pool: samples of the reference and, to reach further, of other policies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignlab.bounds import Amount, Count, Seed
from alignlab.data.trees import PromptTree
from alignlab.errors import DataError
from alignlab.evaluation.points import PLAIN, distinct_ids
from alignlab.evaluation.prompts import load_prompts
from alignlab.evaluation.scoring import completion_logps, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.pool import POOL_NAME, REFERENCE, Pool
from alignlab.results.statistics import Floats
from alignlab.rewards import Reward
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples

POOL_ROLLOUT = 1  # proposal j draws from rollout 1 + j


def build_pool(
    reference_policy: Policy,
    prompts: Sequence[PromptTree],
    reward: Reward,
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
    stop_ids: Sequence[int],
    proposals: Mapping[str, Policy] | None = None,
    proposal_samples: int = 0,
    proxy: Reward | None = None,
    batch_size: int = 256,
    spec: SamplingSpec = PLAIN,
) -> Pool:
    """Sample, score and weigh a pool for the oracle and best-of-n.

    Args:
        reference_policy: The reference; ``samples`` of the pool are its own.
        prompts: The evaluation's prompts.
        reward: The gold reward.
        samples: Reference samples per prompt (best-of-n needs 16 n).
        max_new_tokens: As in the evaluation.
        seed: Of the sampling noise.
        stop_ids: As in the evaluation.
        proposals: Trained policies to sample from as well, by name; same tokenizer.
        proposal_samples: Samples per prompt from each of them.
        proxy: A learned reward to rank best-of-n by.
        batch_size: Completions per batch.
        spec: As in the evaluation.

    Raises:
        DataError: No prompts, two of one name, a proposal named ``reference``, or a reward that
            is not a finite number.
        ConfigError: A policy's samples are not what its forward scores (see ``check_samples``).
    """
    others = dict(proposals or {}) if proposal_samples else {}
    ids = distinct_ids(prompts)
    if REFERENCE in others:
        raise DataError(
            f"a pool's proposals must not be named {REFERENCE!r}; got {', '.join(others)}."
        )
    policies = {REFERENCE: reference_policy, **others}
    counts = [samples] + [proposal_samples] * len(others)
    with evaluating(*policies.values()):
        drawn = [
            sample(
                policy,
                prompts,
                samples=count,
                max_new_tokens=max_new_tokens,
                spec=spec,
                seed=seed,
                rollout=POOL_ROLLOUT + j,
                stop_ids=stop_ids,
                batch_size=batch_size,
            )
            for j, (policy, count) in enumerate(zip(policies.values(), counts, strict=True))
        ]
        for policy, block in zip(policies.values(), drawn, strict=True):
            check_samples(policy, block, spec)
        logps = [
            np.hstack(
                [
                    _own_logps(block)
                    if i == j
                    else completion_logps(policy, block.trees, spec=spec, batch_size=batch_size)
                    .numpy()
                    .reshape(len(ids), -1)
                    for i, block in enumerate(drawn)
                ]
            )
            for j, policy in enumerate(policies.values())
        ]
        ended = [[end for own in drawn for end in own.finished[p]] for p in range(len(ids))]
        joined = Samples(_joined(drawn), [], ended)
        questions, answers = joined.texts(reference_policy.tokenizer)
        gold = checked_rewards(reward, questions, answers).numpy()
        learned = None if proxy is None else checked_rewards(proxy, questions, answers).numpy()
    shape = (len(ids), sum(counts))
    width = shape[1]
    return Pool(
        prompt_ids=ids,
        rewards=gold.reshape(shape),
        proxy=None if learned is None else learned.reshape(shape),
        proposals=tuple(policies),
        proposal=np.repeat(np.arange(len(counts)), counts),
        log_ref=logps[0],
        log_mixture=mixture_logps(logps, counts),
        texts=tuple(tuple(answers[i : i + width]) for i in range(0, len(answers), width)),
        lengths=np.array([[len(c) for c in tree.completions] for tree in joined.trees], float),
    )


def mixture_logps(logps: Sequence[Floats], counts: Sequence[int]) -> Floats:
    """log sum_j (n_j / N) q_j(y) from each proposal's log q_j(y): the balance heuristic's mixture.

    Args:
        logps: For each proposal, its log-probs of *all* samples, in any shape.
        counts: For each proposal n_j, how many of a prompt's N samples are from it.
    """
    total = sum(counts)
    terms = [torch.from_numpy(x) + math.log(n / total) for x, n in zip(logps, counts, strict=True)]
    out: Floats = torch.logsumexp(torch.stack(terms), dim=0).numpy()
    return out


def _own_logps(drawn: Samples) -> Floats:
    """``[P, n]`` log-probs from the sampler: within 1e-5 of a forward's, at no cost."""
    return np.array([[float(x.double().sum()) for x in row] for row in drawn.token_logps])


def _joined(drawn: Sequence[Samples]) -> list[PromptTree]:
    """One tree per prompt with the completions of every proposal, proposal after proposal."""
    return [
        replace(trees[0], completions=tuple(c for tree in trees for c in tree.completions))
        for trees in zip(*(samples.trees for samples in drawn), strict=True)
    ]


def draw_pool(
    out: Path,
    *,
    reference: str,
    prompts: str,
    reward: Mapping[str, Any] | str,
    samples: Count,
    max_new_tokens: Count,
    seed: Seed,
    limit: Count | None = None,
    proxy: Mapping[str, Any] | str | None = None,
    proposals: Mapping[str, str] | None = None,
    proposal_samples: Amount = 0,
    batch_size: Count = 256,
    max_length: Count | None = None,
) -> None:
    """Sample the oracle's pool and write ``out/pool.parquet``: a stage of the pipeline.

    Args:
        out: Folder to write to.
        reference: Folder of the reference policy.
        prompts: The evaluation's prompts, as the probe reads them.
        reward: The gold reward: ``class_path`` and ``init_args``.
        samples: Reference samples per prompt. Effective sample size falls about like exp(KL), and
            best-of-n needs 16 n.
        max_new_tokens: As in the probe.
        seed: Of the sampling noise.
        limit: As in the probe.
        proxy: A learned reward, for best-of-n ranked by it.
        proposals: Folders of trained policies to sample from as well, by name: they carry the
            optimum to larger KL.
        proposal_samples: Samples per prompt from each of them.
        batch_size: Completions per batch.
        max_length: As in the probe.
    """
    policy = Policy.load_for_eval(reference)
    pool = build_pool(
        policy,
        load_prompts(prompts, policy.tokenizer, limit=limit, max_length=max_length),
        build_reward(reward),
        samples=samples,
        max_new_tokens=max_new_tokens,
        seed=seed,
        stop_ids=policy.stop_ids,
        proposals={k: Policy.load_for_eval(v) for k, v in (proposals or {}).items()},
        proposal_samples=proposal_samples,
        proxy=None if proxy is None else build_reward(proxy),
        batch_size=batch_size,
    )
    pool.save(out / POOL_NAME)
