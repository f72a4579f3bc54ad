"""Per-prompt results of a checkpoint, from which the frontier and its bootstrap are computed.

A results folder has one ``points/<run_id>.parquet`` per run, a row per (step, prompt); the row of
``points.csv`` is the mean over its prompts.
"""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.errors import DataError, in_a_line
from alignlab.files import atomic_write
from alignlab.results.run_folder import Evaluation
from alignlab.results.statistics import Floats, clustered_se
from alignlab.results.tables import POINT_COLUMNS, Point

OF_PAIRS = ("chosen_logp", "rejected_logp")
MEASURES = ("kl", "kl_k1", "reward", "proxy_reward", "length", "entropy", *OF_PAIRS)
OPTIONAL = ("proxy_reward", "entropy", *OF_PAIRS)  # not asked for, or not measured by older code
WITH_ERROR = ("kl", "kl_k1", "reward")
SCORE_COLUMNS: dict[str, type] = {
    "prompt_id": str,
    **dict.fromkeys(MEASURES, float),
    "n_samples": int,
}
NAMES: dict[str, type] = {"objective": str, "run_id": str, "seed": int, "step": int}
PROMPT_COLUMNS = NAMES | SCORE_COLUMNS


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
        entropy: ``[P]`` minus the log-prob of the policy's own completions, nats per completion:
            an unbiased estimate of their entropy. ``None`` in tables of older code.
        chosen_logp: ``[P]`` log-prob of the preferred completions of held-out pairs, nats per
            completion, or ``None``.
        rejected_logp: ``[P]`` log-prob of the other completions of these pairs.
    """

    prompt_ids: tuple[str, ...]
    kl: Floats
    kl_k1: Floats
    reward: Floats
    proxy_reward: Floats | None
    length: Floats
    n_samples: NDArray[np.int64]
    entropy: Floats | None = None
    chosen_logp: Floats | None = None
    rejected_logp: Floats | None = None

    @classmethod
    def joined(cls, parts: Sequence["PromptScores"]) -> "PromptScores":
        """The scores of several sets of prompts, one set after another."""
        columns = {each.name: [getattr(part, each.name) for part in parts] for each in fields(cls)}
        names = tuple(name for part in columns.pop("prompt_ids") for name in part)
        values: dict[str, Any] = {
            name: None if column[0] is None else np.concatenate(column)
            for name, column in columns.items()
        }
        return cls(prompt_ids=names, **values)

    def means(self) -> dict[str, float]:
        """Mean over prompts of every measure that there is."""
        found = {name: getattr(self, name) for name in MEASURES}
        return {name: float(values.mean()) for name, values in found.items() if values is not None}

    def errors(self) -> dict[str, float]:
        """Standard errors of the means, clustered by prompt: ``kl_se`` is that of ``kl``."""
        return {f"{name}_se": clustered_se(getattr(self, name)) for name in WITH_ERROR}


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptTable:
    """``PromptScores`` of one checkpoint, with its name."""

    objective: str
    run_id: str
    seed: int
    step: int
    scores: PromptScores

    def point(self, **shared: Any) -> Point:
        """The row of ``points.csv``: means over prompts, errors clustered by prompt.

        Args:
            shared: The fields that the scores do not tell: ``experiment``, ``hparams``,
                ``config_sha``, ``git_sha`` and ``seconds``.
        """
        scores = self.scores
        values: dict[str, Any] = {name: getattr(self, name) for name in NAMES}
        means = {name: scores.means().get(name) for name in MEASURES if name in POINT_COLUMNS}
        values |= means | scores.errors() | shared
        n_samples = int(scores.n_samples.sum())
        return Point(**values, n_prompts=len(scores.prompt_ids), n_samples=n_samples)


def collect(
    evaluations: Iterable[Evaluation],
    path: Path,
    *,
    objective: str,
    run_id: str,
    seed: int,
    **shared: Any,
) -> list[Point]:
    """Collect the probe's files of a run: write its per-prompt table, return its rows.

    Args:
        evaluations: Of the run.
        path: Of the table.
        objective: As the tables name it.
        run_id: Likewise.
        seed: Of the training.
        shared: What else all rows have in common, see ``PromptTable.point``.

    Raises:
        FloatingPointError: An evaluation is not finite. The run then has no rows, because a curve
            must not contain a run that diverged.
    """
    tables, points = [], []
    for evaluation in evaluations:
        scores = read_scores(evaluation.scores)
        _check_finite(scores, evaluation.step)
        table = PromptTable(
            objective=objective, run_id=run_id, seed=seed, step=evaluation.step, scores=scores
        )
        tables.append(table)
        points.append(table.point(seconds=evaluation.seconds, **shared))
    write_prompt_tables(path, tables)
    return points


def _check_finite(scores: PromptScores, step: int) -> None:
    names = {"kl": "KL", "kl_k1": "KL (k1)", "reward": "reward"}
    means = scores.means()
    wrong = [f"{said} {means[name]}" for name, said in names.items() if not isfinite(means[name])]
    if wrong:
        raise FloatingPointError(
            f"the evaluation after step {step} has {', '.join(wrong)}: the weights have diverged. "
            "Lower the learning rate."
        )


def write_scores(path: Path, scores: PromptScores) -> None:
    """Write one evaluation; ``collect`` adds the run's name later."""
    write_parquet(path, _columns(scores), SCORE_COLUMNS)


def read_scores(path: Path) -> PromptScores:
    """What ``write_scores`` wrote; raises like ``read_prompt_tables``."""
    frame = read_parquet(path, SCORE_COLUMNS, OPTIONAL).to_pydict()
    return _scores(frame, range(len(frame["prompt_id"])))


def write_prompt_tables(path: Path, tables: Sequence[PromptTable]) -> None:
    """Write checkpoints of one run to a Parquet file, in order of step, in one replacing step."""
    columns: dict[str, list[Any]] = {name: [] for name in PROMPT_COLUMNS}
    for table in sorted(tables, key=lambda table: (table.run_id, table.step)):
        for name in NAMES:
            columns[name] += [getattr(table, name)] * len(table.scores.prompt_ids)
        for name, values in _columns(table.scores).items():
            columns[name] += values
    write_parquet(path, columns, PROMPT_COLUMNS)


def _columns(scores: PromptScores) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"prompt_id": list(scores.prompt_ids)}
    for name in (*MEASURES, "n_samples"):
        values = getattr(scores, name)
        columns[name] = [None] * len(scores.prompt_ids) if values is None else values.tolist()
    return columns


def write_parquet(path: Path, columns: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Write a table.

    Args:
        path: The file.
        columns: Name -> values.
        kinds: Name -> ``str``, ``int`` or ``float``: the columns in their order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = _arrow_types()
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns), schema=schema), buffer, compression="zstd")
    atomic_write(path, buffer.getvalue())


def _arrow_types() -> dict[type, Any]:
    import pyarrow as pa

    return {str: pa.string(), int: pa.int64(), float: pa.float64()}


def read_prompt_tables(path: Path) -> list[PromptTable]:
    """Checkpoints in ``path``, in order of step.

    Raises:
        DataError: The file is missing, is no Parquet table, or lacks a column.
    """
    table = read_parquet(path, PROMPT_COLUMNS, OPTIONAL)
    frame = {name: table.column(name).to_pylist() for name in PROMPT_COLUMNS}
    keys = list(zip(*(frame[name] for name in NAMES), strict=True))
    return [
        PromptTable(
            **dict(zip(NAMES, key, strict=True)),
            scores=_scores(frame, [i for i, other in enumerate(keys) if other == key]),
        )
        for key in sorted(set(keys), key=lambda key: (key[1], key[3]))
    ]


def _scores(frame: dict[str, list[Any]], rows: Sequence[int]) -> PromptScores:
    columns = {name: [frame[name][i] for i in rows] for name in SCORE_COLUMNS}
    measures: dict[str, Any] = {
        name: None if None in columns[name] else np.array(columns[name], dtype=np.float64)
        for name in MEASURES
    }
    return PromptScores(
        prompt_ids=tuple(columns["prompt_id"]),
        n_samples=np.array(columns["n_samples"], dtype=np.int64),
        **measures,
    )


def read_parquet(path: Path, columns: Mapping[str, type], empty: Collection[str] = ()) -> Any:
    """The Arrow table at ``path`` with at least ``columns``.

    Args:
        path: The file.
        columns: Name -> ``str``, ``int`` or ``float``: what it holds.
        empty: Those that may hold nothing; where one is missing, it is added as such.

    Raises:
        DataError: The file is missing, is no Parquet table, or lacks a column or a value of one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)  # finds bytes that are no text now, not later
    except FileNotFoundError:
        raise DataError(f"{path}: no such table. Run the stage that writes it again.") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(
            f"{path}: not a Parquet table ({in_a_line(error)}). Delete it and run again."
        ) from None
    absent = [name for name in columns if name not in table.column_names]
    for name in [name for name in absent if name in empty]:
        nothing = pa.nulls(len(table), _arrow_types()[columns[name]])
        table = table.append_column(name, nothing)
    if missing := [name for name in absent if name not in empty]:
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
