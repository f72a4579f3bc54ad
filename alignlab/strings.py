"""Policies with strings in and strings out, for notebooks and scripts.

A prompt or completion is a string, or a list of ``{"role": ..., "content": ...}`` messages that the
policy's chat template renders. Nothing is trained here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from alignlab.data.formats import to_rows
from alignlab.data.rows import Demonstration, Prompt, Record, RowReport
from alignlab.data.rows.base import Completable
from alignlab.data.texts import CompletionText
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import DataError
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.evaluation.scoring import completion_kl, completion_logps, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.statistics import clustered_se
from alignlab.rewards.base import Reward, checked_rewards
from alignlab.rollouts.sampler import sample

Said = str | Sequence[Mapping[str, Any]]


class Point(NamedTuple):
    """A policy on the reward-KL plane; standard errors are clustered by prompt.

    Attributes:
        kl: To the reference, in nats per completion.
        kl_se: Its standard error.
        reward: Mean over the completions.
        reward_se: Its standard error.
    """

    kl: float
    kl_se: float
    reward: float
    reward_se: float


def score(policy: Policy, prompts: Sequence[Said], completions: Sequence[Said]) -> Tensor:
    """``[N]`` float64 log-probs in nats of N completions, end-of-text token included.

    An empty completion is the end-of-text token alone.

    Raises:
        DataError: Unequal numbers, or a row that cannot be used, with the reason.
    """
    trees = _trees(policy, prompts, completions)
    with evaluating(policy):
        return completion_logps(policy, trees, spec=SamplingSpec(), batch_size=64)


def generate(
    policy: Policy,
    prompts: Sequence[Said],
    *,
    samples: int = 1,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[str]]:
    """``samples`` completions of each prompt; they remember whether a stop token ended them.

    Raises:
        ConfigError: Prompt and completion would exceed the model's context.
        DataError: A prompt that cannot be used.
    """
    rows = [{"prompt": prompt} for prompt in prompts]
    trees = _tokenised(policy, rows, Prompt)
    drawn = sample(
        policy,
        trees,
        samples=samples,
        max_new_tokens=max_new_tokens,
        spec=SamplingSpec(temperature),
        seed=seed,
        stop_ids=policy.stop_ids,
    )
    texts = drawn.texts(policy.tokenizer)[1]
    return [texts[first : first + samples] for first in range(0, len(texts), samples)]


def point(
    policy: Policy,
    reference: Policy,
    prompts: Sequence[str],
    completions: Sequence[str],
    reward: Reward,
) -> Point:
    """Reward and KL of a policy on completions that it sampled at temperature 1.

    The texts are tokenised again. KL is the sum over steps of the KL between the two next-token
    distributions (arXiv:2504.10637).

    Args:
        policy: What sampled the completions.
        reference: What KL is measured to; the same tokenizer.
        prompts: N prompts; one that has several completions is repeated.
        completions: N completions, as ``generate`` returns them.
        reward: Scores a text: any callable of prompts and completions.

    Raises:
        DataError: As ``score``; a reward that is not a finite number.
    """
    trees = _trees(policy, prompts, completions)
    with evaluating(policy, reference):
        kl = completion_kl(policy, reference, trees, spec=SamplingSpec(), batch_size=64)
    rewards = checked_rewards(reward, prompts, completions)
    nats = kl.exact.numpy()
    return Point(
        float(nats.mean()),
        clustered_se(nats, prompts),
        float(rewards.mean()),
        clustered_se(rewards.numpy(), prompts),
    )


def frontier(
    reference: float, points: Sequence[Point], budgets: Sequence[float]
) -> list[float | None]:
    """The reward at each KL budget on the upper concave hull; ``None`` past the largest KL.

    Args:
        reference: The reference's own reward, the point at KL 0.
        points: Of one objective.
        budgets: In nats.
    """
    kl = np.array([[0.0, *(each.kl for each in points)]])
    rewards = np.array([[reference, *(each.reward for each in points)]])
    vertices = hull_vertices(kl, rewards)[0]
    found = interpolate(kl[:, vertices], rewards[:, vertices], np.array(budgets, dtype=float))[0]
    return [
        float(reward) if budget <= kl.max() else None
        for budget, reward in zip(budgets, found, strict=True)
    ]


def _trees(
    policy: Policy, prompts: Sequence[Said], completions: Sequence[Said]
) -> list[PromptTree]:
    if len(prompts) != len(completions):
        raise DataError(f"{len(prompts)} prompts for {len(completions)} completions.")
    rows = [
        {
            "prompt": prompt,
            "completion": str(said) if isinstance(said, str) else said,
            "ends": not isinstance(said, CompletionText) or said.ends,
        }
        for prompt, said in zip(prompts, completions, strict=True)
    ]
    made = iter(_tokenised(policy, [row for row in rows if row["completion"]], Demonstration))
    # Training refuses an empty completion, but a policy may end at once.
    silent = [{"prompt": row["prompt"]} for row in rows if not row["completion"]]
    ended = (
        replace(tree, completions=((policy.tokenizer.eos_token_id,),))
        for tree in _tokenised(policy, silent, Prompt)
    )
    trees = [next(made if row["completion"] else ended) for row in rows]
    return [replace(tree, index=n) for n, tree in enumerate(trees)]  # both count from 0


def _tokenised(
    policy: Policy, fields: Sequence[dict[str, Any]], kind: type[Completable]
) -> list[PromptTree]:
    """A tree for each row.

    Raises:
        DataError: A row that cannot be used.
    """
    if not fields:
        return []
    report = RowReport("the given texts", refuse="error")
    records = [Record(f"text {n}", each) for n, each in enumerate(fields, start=1)]
    return tokenise(to_rows(records, kind, report), policy.tokenizer, report)
