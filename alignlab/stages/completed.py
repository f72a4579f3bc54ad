"""Sample a policy's completions of a file of prompts and score them, for stages that make data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from alignlab.data.rows import Prompt
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample

ROLLOUT = -1  # a rollout number that no training run uses: those count up from 0
_AT_ONCE = 2048  # completions between two steps of the progress bar


@dataclass(frozen=True, slots=True)
class Completions:
    """One prompt's K completions: texts, whether each ended by itself, and rewards ``[K]``."""

    texts: list[str]
    finished: list[bool]
    rewards: Tensor


@dataclass(slots=True)
class Tally:
    """Counts of the sampled completions for a stage's ``summary.json``."""

    prompts: int = 0
    completions: int = 0
    finished: int = 0
    tokens: int = 0
    reward_sum: float = 0.0
    reward_squares: float = 0.0

    def count(self, own: Completions, tree: PromptTree) -> None:
        """Add one prompt's completions."""
        self.prompts += 1
        self.completions += len(own.texts)
        self.finished += sum(own.finished)
        self.tokens += sum(map(len, tree.completions))
        self.reward_sum += float(own.rewards.sum())
        self.reward_squares += float(own.rewards.square().sum())

    def summary(self) -> dict[str, Any]:
        """Counts and means as plain values."""
        mean = self.reward_sum / self.completions
        variance = max(self.reward_squares / self.completions - mean**2, 0.0)
        return {
            "prompts": self.prompts,
            "completions": self.completions,
            "finished_share": self.finished / self.completions,
            "mean_tokens": self.tokens / self.completions,
            "reward_mean": mean,
            "reward_sd": variance**0.5,
        }


class Completed:
    """A policy, a reward, and the prompts that the policy completes.

    Args:
        policy: Folder or hub id of the policy.
        prompts: File or hub id of prompts.
        reward: ``class_path`` and ``init_args`` of the reward.
        limit: How many prompts to use, from the start.
        max_new_tokens: Tokens of a completion that does not end by itself.
        stop_at_eos: End completions at the end-of-text token; otherwise all have full length.

    Raises:
        ConfigError: An impossible value.
        DataError: No usable prompt.
    """

    def __init__(
        self,
        policy: str,
        prompts: str,
        reward: Mapping[str, Any],
        limit: int | None,
        max_new_tokens: int,
        stop_at_eos: bool,
    ) -> None:
        self.reward = build_reward(reward)
        self.policy = Policy.load_for_eval(policy)
        self.max_new_tokens = max_new_tokens
        rows, report = read_rows(prompts, Prompt, limit=limit)
        context = self.policy.room
        room = None if context is None else max(context - max_new_tokens, 2)
        self.trees = tokenise(rows, self.policy.tokenizer, report, max_length=room)
        self.rows = [rows[tree.row] for tree in self.trees]
        report.tell()
        self.refused = report.counts
        self.stops = self.policy.stop_ids if stop_at_eos else []
        if stop_at_eos and not self.stops:
            raise ConfigError(
                f"the tokenizer of {policy} has no end-of-text token: stop_at_eos=false."
            )

    def draw(
        self, samples: int, spec: SamplingSpec, seed: int, batch_size: int, tally: Tally
    ) -> Iterator[tuple[Prompt, int, Completions]]:
        """Each usable prompt with its index (the name of its noise) and ``samples`` completions."""
        each = max(1, _AT_ONCE // samples)
        with tqdm(total=len(self.trees), desc="completions", unit="prompt") as bar:
            for start in range(0, len(self.trees), each):
                drawn = sample(
                    self.policy,
                    self.trees[start : start + each],
                    samples=samples,
                    max_new_tokens=self.max_new_tokens,
                    spec=spec,
                    seed=seed,
                    rollout=ROLLOUT,
                    stop_ids=self.stops,
                    batch_size=batch_size,
                )
                if start == 0:
                    check_samples(self.policy, drawn, spec)
                questions, answers = drawn.texts(self.policy.tokenizer)
                rewards = checked_rewards(self.reward, questions, answers).view(-1, samples)
                for i, tree in enumerate(drawn.trees):
                    texts = answers[i * samples : (i + 1) * samples]
                    own = Completions(texts, drawn.finished[i], rewards[i])
                    tally.count(own, tree)
                    yield self.rows[start + i], tree.index, own
                bar.update(len(drawn.trees))
