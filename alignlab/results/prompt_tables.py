"""Per-prompt results of a checkpoint: what the frontier's halves and bootstrap are made from.

A results folder has one ``points/<run_id>.parquet`` per run, a row per (step, prompt); the row of
``points.csv`` is the mean over its prompts.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.errors import DataError, in_a_line
from alignlab.files import atomic_write
from alignlab.results.statistics import Floats, clustered_se
from alignlab.results.tables import Point

PROMPT_COLUMNS: dict[str, type] = {
    "objective": str,
    "run_id": str,
    "seed": int,
    "step": int,
    "prompt_id": str,
    "kl": float,
    "kl_k1": float,
    "reward": float,
    "proxy_reward": float,
    "length": float,
    "n_samples": int,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptScores:
    """Means over a prompt's completions, one entry per prompt.

    Args:
        prompt_ids: P names.
        kl: ``[P]`` Rao-Blackwell KL, nats per completion.
        kl_k1: ``[P]`` log-ratio KL, nats per completion.
        reward: ``[P]`` gold reward.
        proxy_reward: ``[P]`` learned reward, or ``None``.
        length: ``[P]`` tokens per completion.
        n_samples: ``[P]`` completions behind the means.
    """

    prompt_ids: tuple[str, ...]
    kl: Floats
    kl_k1: Floats
    reward: Floats
    proxy_reward: Floats | None
    length: Floats
    n_samples: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptTable:
    """``PromptScores`` of one checkpoint, with its name."""

    objective: str
    run_id: str
    seed: int
    step: int
    scores: PromptScores

    def point(
        self,
        *,
        experiment: str,
        hparams: dict[str, Any],
        config_sha: str,
        git_sha: str,
        seconds: float,
    ) -> Point:
        """The row of ``points.csv``: means over prompts, errors clustered by prompt."""
        scores = self.scores
        proxy = None if scores.proxy_reward is None else float(scores.proxy_reward.mean())
        return Point(
            experiment=experiment,
            objective=self.objective,
            run_id=self.run_id,
            seed=self.seed,
            step=self.step,
            hparams=hparams,
            kl=float(scores.kl.mean()),
            kl_se=clustered_se(scores.kl),
            kl_k1=float(scores.kl_k1.mean()),
            kl_k1_se=clustered_se(scores.kl_k1),
            reward=float(scores.reward.mean()),
            reward_se=clustered_se(scores.reward),
            proxy_reward=proxy,
            length=float(scores.length.mean()),
            n_prompts=len(scores.prompt_ids),
            n_samples=int(scores.n_samples.sum()),
            config_sha=config_sha,
            git_sha=git_sha,
            seconds=seconds,
        )


def write_prompt_tables(path: Path, tables: Sequence[PromptTable]) -> None:
    """Write checkpoints of one run to a Parquet file, in order of step, in one replacing step."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(tables, key=lambda table: (table.run_id, table.step))
    columns: dict[str, list[Any]] = {name: [] for name in PROMPT_COLUMNS}
    for table in ordered:
        scores = table.scores
        n = len(scores.prompt_ids)
        for name in ("objective", "run_id", "seed", "step"):
            columns[name] += [getattr(table, name)] * n
        columns["prompt_id"] += scores.prompt_ids
        for name in ("kl", "kl_k1", "reward", "length", "n_samples"):
            columns[name] += getattr(scores, name).tolist()
        proxy = scores.proxy_reward
        columns["proxy_reward"] += [None] * n if proxy is None else proxy.tolist()
    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in PROMPT_COLUMNS.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
    atomic_write(path, buffer.getvalue())


def read_prompt_tables(path: Path) -> list[PromptTable]:
    """Checkpoints in ``path``, in order of step.

    Raises:
        DataError: The file is missing, is no Parquet table, or lacks a column.
    """
    table = read_parquet(path, PROMPT_COLUMNS, ("proxy_reward",))
    frame = {name: table.column(name).to_pylist() for name in PROMPT_COLUMNS}
    keys = list(
        zip(*(frame[name] for name in ("objective", "run_id", "seed", "step")), strict=True)
    )
    tables = []
    for key in sorted(set(keys), key=lambda key: (key[1], key[3])):
        rows = [i for i, other in enumerate(keys) if other == key]
        tables.append(
            PromptTable(
                objective=key[0],
                run_id=key[1],
                seed=key[2],
                step=key[3],
                scores=_scores(frame, rows),
            )
        )
    return tables


def _scores(frame: dict[str, list[Any]], rows: list[int]) -> PromptScores:
    def floats(name: str) -> Floats:
        return np.array([frame[name][i] for i in rows], dtype=np.float64)

    proxy = [frame["proxy_reward"][i] for i in rows]
    return PromptScores(
        prompt_ids=tuple(frame["prompt_id"][i] for i in rows),
        kl=floats("kl"),
        kl_k1=floats("kl_k1"),
        reward=floats("reward"),
        proxy_reward=None if None in proxy else np.array(proxy, dtype=np.float64),
        length=floats("length"),
        n_samples=np.array([frame["n_samples"][i] for i in rows], dtype=np.int64),
    )


def read_parquet(path: Path, columns: Mapping[str, type], empty: Collection[str] = ()) -> Any:
    """The Arrow table at ``path`` with at least ``columns``.

    Args:
        path: The file.
        columns: Name -> ``str``, ``int`` or ``float``: what it holds.
        empty: Those that may hold nothing.

    Raises:
        DataError: The file is missing, is no Parquet table, or lacks a column or a value of one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)  # bytes that are no text are found when they are asked for
    except FileNotFoundError:
        raise DataError(f"{path}: no such table. Run the stage that writes it again.") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path}: not a Parquet table ({in_a_line(error)}). Delete it and run again."
        ) from None
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}. Run its stage again.")
    fits = {str: pa.types.is_string, int: pa.types.is_integer, float: pa.types.is_floating}
    for name, kind in columns.items():
        column = table.column(name)
        gaps = 0 if name in empty else column.null_count
        if gaps or not fits[kind](column.type):
            raise DataError(
                f"{path}: column {name!r} holds {column.type} and {column.null_count:,} empty "
                f"values, expected {kind.__name__} in each row. Delete it and run again."
            )
    return table
