"""Rewards relative to a pool of reference samples: a completion's rank among them."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from alignlab.data.rows import Candidates, Text
from alignlab.data.rows.split import text_key
from alignlab.data.sources import read_rows
from alignlab.data.texts import PromptText, completion_text, prompt_text
from alignlab.errors import ConfigError, DataError
from alignlab.rewards.base import Reward, checked_rewards

CHECKED = 8  # completions of the pool that are scored again
TOLERANCE = 1e-3


class RewardPool:
    """The rewards of the reference's samples of each prompt, from a file of candidates.

    Args:
        source: Written by ``alignlab.stages.candidates``.
        reward: The reward that rated them; a few samples are rescored to check this.

    Raises:
        DataError: No usable row in the file.
        ConfigError: The file holds another reward's scores.
    """

    def __init__(self, source: str, reward: Reward) -> None:
        self.source = source
        self._of: dict[str, list[float]] = {}
        rows, _ = read_rows(source, Candidates)
        for row in rows:
            self._of.setdefault(text_key(row.prompt), []).extend(row.ratings)
        for ratings in self._of.values():
            ratings.sort()
        self._check(list(islice(rows, CHECKED)), reward)

    def of(self, prompt: Text) -> list[float]:
        """The rewards of a prompt's samples, ascending.

        Raises:
            DataError: The prompt is not in the pool.
        """
        source = prompt.source if isinstance(prompt, PromptText) else prompt
        found = self._of.get(text_key(source))
        if found is None:
            raise DataError(
                f"{self.source}: no samples of the prompt {str(prompt)[:60]!r}. Make the pool of "
                "the prompts that are trained on, or take it as their data.init_args.source."
            )
        return found

    def _check(self, rows: Sequence[Candidates], reward: Reward) -> None:
        prompts = [prompt_text(row.prompt) for row in rows]
        firsts = [row.branches()[0] for row in rows]
        texts = [completion_text(first.text, first.ends) for first in firsts]
        again = checked_rewards(reward, prompts, texts)
        known = torch.tensor([row.ratings[0] for row in rows], dtype=torch.float64)
        if not torch.allclose(again, known, rtol=TOLERANCE, atol=TOLERANCE):
            worst = int((again - known).abs().argmax())
            raise ConfigError(
                f"{self.source} holds rewards of another kind: row {rows[worst].id} says "
                f"{known[worst]:.4g}, {type(reward).__name__} gives {again[worst]:.4g}. Make the "
                "pool with the reward that the objective uses."
            )


class BestOfN(Reward):
    """``(n - 1) log F(r)``, a reward whose optimum is close to best-of-n (vBoN, arXiv:2407.06057).

    F is the share of the reference's samples of the prompt whose reward is no larger. The policy
    that maximises this minus its KL to the reference (``kl_coef`` 1) is pi_ref F^(n - 1),
    normalised, which is close to best-of-n. If all M samples have a larger reward, F is
    1 / (M + 1).

    Args:
        reward: The reward that ranks.
        pool: File of candidates that this reward has rated.
        n: The n of best-of-n, >= 1; need not be a whole number.

    Raises:
        ConfigError: ``n`` below 1, or a pool of another reward.
        DataError: No usable row in the pool.
    """

    def __init__(self, reward: Reward, pool: str, n: float) -> None:
        if not 1 <= n < math.inf:
            raise ConfigError(f"BestOfN needs n >= 1, got {n}. Set reward.init_args.n.")
        self.reward, self.n = reward, n
        self.pool = RewardPool(pool, reward)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64, at most 0.

        Raises:
            DataError: A prompt that is not in the pool.
        """
        scores = checked_rewards(self.reward, prompts, completions).tolist()
        pools = [self.pool.of(prompt) for prompt in prompts]
        return (self.n - 1) * torch.tensor(
            [
                math.log(bisect_right(pool, score) / len(pool) or 1 / (len(pool) + 1))
                for pool, score in zip(pools, scores, strict=True)
            ],
            dtype=torch.float64,
        )
