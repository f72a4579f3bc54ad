"""A pool of sampled completions with their rewards: the data of the oracle and best-of-n."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.errors import DataError
from alignlab.results.prompt_tables import read_parquet, write_parquet
from alignlab.results.statistics import Floats

POOL_NAME = "pool.parquet"
POOL_RECORD = "pool.json"  # beside a pool outside of a stage: its hash, and what it was drawn from
REFERENCE = "reference"
OPTIONAL = ("text", "proxy_reward", "length")  # all of a column's values, or none
_COLUMNS: dict[str, type] = {
    "prompt_id": str,
    "text": str,
    "reward": float,
    "proxy_reward": float,
    "proposal": str,
    "log_ref": float,
    "log_mixture": float,
    "length": int,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """N samples for each of P prompts, N the same for all, from one or more proposals.

    Args:
        prompt_ids: P names.
        rewards: ``[P, N]`` gold reward.
        proxy: ``[P, N]`` learned reward, or ``None``.
        proposals: Names of the policies sampled from; the first is ``reference``.
        proposal: ``[N]`` which of them sample i of every prompt is from.
        log_ref: ``[P, N]`` log pi_ref(y), nats.
        log_mixture: ``[P, N]`` log sum_j (n_j / N) q_j(y), nats; equals ``log_ref`` without
            further proposals.
        texts: ``[P][N]`` completions, or ``None``.
        lengths: ``[P, N]`` their tokens, or ``None``, as in pools that were drawn without.
    """

    prompt_ids: tuple[str, ...]
    rewards: Floats
    proxy: Floats | None
    proposals: tuple[str, ...]
    proposal: NDArray[np.int64]
    log_ref: Floats
    log_mixture: Floats
    texts: tuple[tuple[str, ...], ...] | None = None
    lengths: Floats | None = None

    @property
    def log_ratio(self) -> Floats | None:
        """``[P, N]`` log(pi_ref / mixture); ``None`` if every sample is from the reference."""
        return None if len(self.proposals) == 1 else self.log_ref - self.log_mixture

    def from_reference(self) -> NDArray[np.bool_]:
        """``[N]`` True where a sample was drawn from the reference."""
        return self.proposal == 0

    def take(self, prompt_ids: tuple[str, ...]) -> "Pool":
        """The same pool with its prompts in the order of ``prompt_ids``.

        Raises:
            DataError: A prompt is not in the pool.
        """
        place = {name: i for i, name in enumerate(self.prompt_ids)}
        missing = [name for name in prompt_ids if name not in place]
        if missing:
            raise DataError(
                f"oracle pool: {len(missing)} of {len(prompt_ids)} evaluated prompts are not in "
                f"it, e.g. {missing[0]!r}. Make the pool on the prompts of the evaluation."
            )
        rows = [place[name] for name in prompt_ids]
        return Pool(
            prompt_ids=prompt_ids,
            rewards=self.rewards[rows],
            proxy=None if self.proxy is None else self.proxy[rows],
            proposals=self.proposals,
            proposal=self.proposal,
            log_ref=self.log_ref[rows],
            log_mixture=self.log_mixture[rows],
            texts=None if self.texts is None else tuple(self.texts[i] for i in rows),
            lengths=None if self.lengths is None else self.lengths[rows],
        )

    def save(self, path: Path) -> None:
        """Write a Parquet file, a row per sample, prompt after prompt."""
        prompts, samples = self.rewards.shape
        names = [self.proposals[j] for j in self.proposal]
        columns: dict[str, Any] = {
            "prompt_id": [name for name in self.prompt_ids for _ in range(samples)],
            "text": None if self.texts is None else [t for row in self.texts for t in row],
            "reward": self.rewards.ravel(),
            "proxy_reward": None if self.proxy is None else self.proxy.ravel(),
            "proposal": names * prompts,
            "log_ref": self.log_ref.ravel(),
            "log_mixture": self.log_mixture.ravel(),
            "length": None if self.lengths is None else self.lengths.ravel().astype(int),
        }
        nothing = [None] * (prompts * samples)
        filled = {name: nothing if value is None else value for name, value in columns.items()}
        write_parquet(path, filled, _COLUMNS)

    @staticmethod
    def load(path: Path) -> "Pool":
        """Read what ``save`` wrote.

        Raises:
            DataError: The file is missing, is no pool, or prompts have different samples.
        """
        table = read_parquet(path, _COLUMNS, OPTIONAL)
        ids = table.column("prompt_id").to_pylist()
        prompt_ids = tuple(dict.fromkeys(ids))
        samples = len(ids) // max(len(prompt_ids), 1)
        names = table.column("proposal").to_pylist()
        regular = [name for name in prompt_ids for _ in range(samples)] == ids
        if not ids or not regular or names != names[:samples] * len(prompt_ids):
            raise DataError(
                f"{path}: not {samples} samples of the same proposals for every prompt. "
                "Delete it and run its stage again."
            )
        proposals = tuple(dict.fromkeys([REFERENCE, *names[:samples]]))
        shape = (len(prompt_ids), samples)

        def grid(column: str) -> Floats:
            return np.asarray(table.column(column).to_numpy(), dtype=np.float64).reshape(shape)

        gaps = {name: table.column(name).null_count for name in OPTIONAL}
        partly = [name for name, count in gaps.items() if 0 < count < len(ids)]
        if partly:
            raise DataError(
                f"{path}: {', '.join(partly)} is empty in some rows. Delete the file and run its "
                "stage again."
            )
        has = {name: count == 0 for name, count in gaps.items()}
        texts = table.column("text").to_pylist() if has["text"] else []
        rows = (texts[i : i + samples] for i in range(0, len(texts), samples))
        return Pool(
            prompt_ids=prompt_ids,
            rewards=grid("reward"),
            proxy=grid("proxy_reward") if has["proxy_reward"] else None,
            proposals=proposals,
            proposal=np.array([proposals.index(name) for name in names[:samples]], dtype=np.int64),
            log_ref=grid("log_ref"),
            log_mixture=grid("log_mixture"),
            texts=tuple(tuple(row) for row in rows) if has["text"] else None,
            lengths=grid("length") if has["length"] else None,
        )
