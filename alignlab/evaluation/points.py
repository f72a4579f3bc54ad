"""A point on the reward-KL plane: a policy's reward, KL and length on fixed prompts.

The noise of evaluation samples is a function of (seed, prompt, sample, position), the same for
every run: two policies differ by their distributions, not by their luck.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignlab.data.trees import PromptTree
from alignlab.errors import DataError
from alignlab.evaluation.scoring import completion_kl, completion_logps, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.prompt_tables import OF_PAIRS, PromptScores
from alignlab.results.run_folder import SampleText
from alignlab.results.statistics import Floats
from alignlab.rewards.base import Reward, checked_rewards
from alignlab.rollouts.comparison import check_drawn
from alignlab.rollouts.sampler import sample

EVALUATION_ROLLOUT = 0  # the oracle's pool draws from rollout 1 on, so its noise is independent
PLAIN = SamplingSpec()


@dataclass(frozen=True, slots=True)
class PointEstimate:
    """A policy's per-prompt scores and the completions behind them."""

    scores: PromptScores
    samples: list[SampleText]

    @classmethod
    def joined(cls, parts: Sequence["PointEstimate"]) -> "PointEstimate":
        """The estimate on several sets of prompts, one set after another."""
        scores = PromptScores.joined([part.scores for part in parts])
        return cls(scores, [text for part in parts for text in part.samples])


def evaluate_policy(
    policy: Policy,
    reference_policy: Policy,
    prompts: Sequence[PromptTree],
    reward: Reward,
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
    stop_ids: Sequence[int],
    proxy: Reward | None = None,
    pairs: Sequence[Sequence[PromptTree]] = (),
    batch_size: int = 256,
    spec: SamplingSpec = PLAIN,
) -> PointEstimate:
    """Sample ``samples`` completions of every prompt and score them.

    Args:
        policy: Evaluated in float32 and eval mode, and restored afterwards.
        reference_policy: KL is measured to it; it has the same tokenizer.
        prompts: P trees with distinct indices and ids; their completions are ignored.
        reward: The gold reward.
        samples: Completions per prompt.
        max_new_tokens: Tokens of a completion that no stop token ends.
        seed: Of the sampling noise; give every run the same.
        stop_ids: Tokens that end a completion.
        proxy: A learned reward, reported beside the gold one.
        pairs: Held-out pairs of each prompt (see ``evaluation.prompts.load_pairs``), to report the
            log-probs of their completions.
        batch_size: Completions per batch.
        spec: The distribution that is sampled and scored.

    Raises:
        ConfigError: KL is not defined or infinite (see ``completion_kl``), or what was sampled is
            not what the forward scores (see ``check_drawn``).
        DataError: No prompts, two of one name, or a reward that is not a finite number.
    """
    ids = distinct_ids(prompts)
    with evaluating(policy, reference_policy):
        drawn = sample(
            policy,
            prompts,
            samples=samples,
            max_new_tokens=max_new_tokens,
            spec=spec,
            seed=seed,
            rollout=EVALUATION_ROLLOUT,
            stop_ids=stop_ids,
            batch_size=batch_size,
        )
        kl = completion_kl(policy, reference_policy, drawn.trees, spec=spec, batch_size=batch_size)
        check_drawn(drawn, kl.token_logps, type(policy.model).__name__, policy.precision)
        questions, answers = drawn.texts(policy.tokenizer)
        gold = checked_rewards(reward, questions, answers).numpy()
        learned = None if proxy is None else checked_rewards(proxy, questions, answers).numpy()
        held_out = _pair_logps(policy, pairs, spec, batch_size) if pairs else {}
    lengths = np.array([len(c) for t in drawn.trees for c in t.completions], dtype=np.float64)
    scores = PromptScores(
        prompt_ids=ids,
        kl=_per_prompt(kl.exact.numpy(), samples),
        kl_k1=_per_prompt(kl.k1.numpy(), samples),
        reward=_per_prompt(gold, samples),
        proxy_reward=None if learned is None else _per_prompt(learned, samples),
        length=_per_prompt(lengths, samples),
        n_samples=np.full(len(ids), samples, dtype=np.int64),
        entropy=-_per_prompt(_sums(kl.token_logps.numpy(), lengths), samples),
        **held_out,
    )
    texts = [
        SampleText(
            prompt_id=ids[i // samples],
            prompt=questions[i],
            completion=answers[i],
            reward=float(gold[i]),
            proxy_reward=None if learned is None else float(learned[i]),
            kl=float(kl.exact[i]),
            length=int(lengths[i]),
        )
        for i in range(len(answers))
    ]
    return PointEstimate(scores, texts)


def distinct_ids(prompts: Sequence[PromptTree]) -> tuple[str, ...]:
    """The prompts' names, by which tables are joined.

    Raises:
        DataError: No prompts, or two of one name.
    """
    ids = tuple(tree.id for tree in prompts)
    if not ids:
        raise DataError("evaluation needs prompts, got none.")
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise DataError(
            f"evaluation joins tables by the prompts' ids, and {len(repeated)} of them repeat, "
            f"e.g. {repeated[0]!r}. Give each prompt an id of its own, or read them with "
            "load_prompts, which numbers them."
        )
    return ids


def _pair_logps(
    policy: Policy, pairs: Sequence[Sequence[PromptTree]], spec: SamplingSpec, batch_size: int
) -> dict[str, Floats]:
    """``[P]`` mean log-prob of each prompt's preferred completions, and of the other ones."""
    trees = [tree for own in pairs for tree in own]
    logps = completion_logps(policy, trees, spec=spec, batch_size=batch_size).numpy()
    borders = np.cumsum([len(own) for own in pairs])[:-1]
    means = [own.mean(0) for own in np.split(logps.reshape(-1, 2), borders)]
    return dict(zip(OF_PAIRS, np.array(means).T, strict=True))


def _sums(tokens: Floats, lengths: Floats) -> Floats:
    """Sums over the tokens of each completion; ``tokens`` are those of one after another."""
    ends = np.cumsum(lengths.astype(np.int64))
    sums: Floats = np.add.reduceat(tokens, ends - lengths.astype(np.int64))
    return sums


def _per_prompt(values: Floats, samples: int) -> Floats:
    means: Floats = values.astype(np.float64).reshape(-1, samples).mean(1)
    return means
