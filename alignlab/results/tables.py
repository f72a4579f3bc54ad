"""The two tables of a results folder, ``points.csv`` and ``frontier.csv``.

Reading and writing only, with the standard library alone, because the question "is this run done?"
must be answered in milliseconds. A table is replaced in one step (written beside, then renamed).
Its rows have one order and its numbers one spelling, so a rerun gives the same bytes.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from alignlab.errors import DataError
from alignlab.files import atomic_write, sha_of

COMMANDS = Path("configs") / "commands.txt"  # what a results folder was made by
DIGITS = 9  # of the numbers in points.csv: enough to come back as they were written
SHOWN = 40  # characters of a damaged row in a message
BUDGETS = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)  # nats per completion, the rows of frontier.csv


@dataclass(frozen=True, kw_only=True)
class Point:
    """One checkpoint of one run: where it stands on the reward-KL plane.

    Args:
        experiment: The experiment's name, with its scale.
        objective: Name of the objective, e.g. ``dpo``, ``ppo`` (learned reward), ``ppo_gt`` (gold).
        run_id: Name of the run, unique within the experiment.
        seed: Training seed; the frontier has one hull per seed.
        step: Optimizer steps taken.
        hparams: What distinguishes the run (beta, learning rate, ...).
        kl: KL(policy || reference) in nats per completion, Rao-Blackwell estimate.
        kl_se: Its standard error, clustered by prompt.
        kl_k1: The same KL by the plain log-ratio of the sampled tokens.
        kl_k1_se: Its standard error, clustered by prompt.
        reward: Mean gold reward per completion, on the experiment's one scale.
        reward_se: Its standard error, clustered by prompt.
        proxy_reward: Mean of the learned reward, where one was asked.
        length: Mean completion length in tokens, an end-of-text token included.
        n_prompts: Prompts evaluated.
        n_samples: Completions evaluated in all.
        config_sha: Hash of what the run is made of.
        git_sha: Commit of the code.
        seconds: Wall time; the only column that differs between reruns.
    """

    experiment: str
    objective: str
    run_id: str
    seed: int
    step: int
    hparams: dict[str, Any]
    kl: float
    kl_se: float
    kl_k1: float
    kl_k1_se: float
    reward: float
    reward_se: float
    proxy_reward: float | None
    length: float
    n_prompts: int
    n_samples: int
    config_sha: str
    git_sha: str
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes the row itself: experiment, run, step."""
        return self.experiment, self.run_id, self.step

    @property
    def order(self) -> tuple[str, str, str, int]:
        """Sort key: the row's place in the table."""
        return self.experiment, self.objective, self.run_id, self.step


@dataclass(frozen=True, kw_only=True)
class FrontierRow:
    """The best reward an objective reaches within a KL budget; ``None`` where unknown.

    Args:
        objective: As in ``points.csv``; also ``best_of_n``, ``best_of_n_gt``, ``oracle`` and
            ``reference``.
        kl_budget: Nats per completion.
        reward: Mean over seeds of the concave hull's reward at the budget.
        reward_lo: Lower end of its 95 % interval (seeds and prompts; prompts only if n_seeds = 1).
        reward_hi: Upper end.
        oracle_reward: Reward of the exact optimum at this KL, on the same prompts.
        oracle_ess: Effective sample size that 95 % of the prompts reach or exceed there.
        oracle_efficiency: (reward - reference) / (oracle - reference).
        efficiency_lo: Lower end of its 95 % interval.
        efficiency_hi: Upper end.
        n_seeds: Seeds whose hull reaches the budget.
        n_prompts: Prompts behind the row.
    """

    objective: str
    kl_budget: float
    reward: float | None = None
    reward_lo: float | None = None
    reward_hi: float | None = None
    oracle_reward: float | None = None
    oracle_ess: float | None = None
    oracle_efficiency: float | None = None
    efficiency_lo: float | None = None
    efficiency_hi: float | None = None
    n_seeds: int = 0
    n_prompts: int = 0


POINT_COLUMNS = tuple(field.name for field in fields(Point))
FRONTIER_COLUMNS = tuple(field.name for field in fields(FrontierRow))

Row = TypeVar("Row", Point, FrontierRow)


def read_points(path: Path) -> list[Point]:
    """Rows of a ``points.csv``.

    Raises:
        DataError: The file is missing, has other columns, or a cell that cannot be read.
    """
    return _read(path, Point)


def write_points(path: Path, points: Iterable[Point]) -> None:
    """Replace ``path`` by ``points``, sorted by experiment, objective, run and step."""
    _write(path, Point, sorted(points, key=lambda p: p.order), DIGITS)


def merge_points(path: Path, new: Sequence[Point]) -> list[Point]:
    """Put ``new`` into ``path`` and return all rows, as written.

    A new row replaces the one with its experiment, run and step. A run that was made again from
    another configuration replaces all of its old rows, so one run never mixes two configurations.
    One process writes a results folder at a time.
    """
    standing = read_points(path) if path.exists() else []
    keys = {point.key for point in new}
    sha = {(point.experiment, point.run_id): point.config_sha for point in new}
    kept = [
        point
        for point in standing
        if point.key not in keys
        and sha.get((point.experiment, point.run_id), point.config_sha) == point.config_sha
    ]
    write_points(path, [*kept, *new])
    return read_points(path)


def row_sha(point: Point) -> str:
    """Hash of a row as ``points.csv`` spells it."""
    return sha_of([_spell(getattr(point, name), DIGITS) for name in POINT_COLUMNS])


def drop_rows(path: Path, is_right: Callable[[Point], bool]) -> list[str]:
    """Take rows out of a ``points.csv`` that cannot be read or are not right; a line for each.

    The table as it was is kept beside it. A table with other columns is left alone: reading it
    says what is wrong.
    """
    lines = path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []
    if not lines or lines[0].rstrip("\r").split(",") != list(POINT_COLUMNS):
        return []
    kept, said = [], []
    for number, line in enumerate(lines[1:], start=2):
        row = _row_of(line) if line else None
        if row is not None and is_right(row):
            kept.append(row)
        elif line:
            said.append(f"{path}:{number} is damaged: {line[:SHOWN]}...")
    if said:
        beside = path.with_name(f"{path.stem}.damaged{path.suffix}")
        atomic_write(beside, path.read_bytes())
        write_points(path, kept)
        said.append(f"{path}: these rows are made again; the table as it was is {beside}")
    return said


def _row_of(line: str) -> Point | None:
    try:
        cells = next(csv.reader([line.rstrip("\r")], strict=True))
        return _typed(Point, cells)
    except (ValueError, csv.Error, StopIteration):
        return None


def read_frontier(path: Path) -> list[FrontierRow]:
    """Rows of a ``frontier.csv``; raises like ``read_points``."""
    return _read(path, FrontierRow)


def write_frontier(path: Path, rows: Iterable[FrontierRow]) -> None:
    """Replace ``path`` by ``rows``, in the order given.

    Six digits: enough to read, few enough that a matrix product summed in another order on
    another machine still gives the same file.
    """
    _write(path, FrontierRow, list(rows), digits=6)


def _write(path: Path, row_type: type[Row], rows: Sequence[Row], digits: int) -> None:
    names = [field.name for field in fields(row_type)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_spell(getattr(row, name), digits) for name in names])
    atomic_write(path, text.getvalue().encode())


def _spell(value: object, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value + 0.0:.{digits}g}"  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _optional_float(cell: str) -> float | None:
    return float(cell) if cell else None


def _float(cell: str) -> float:
    return float(cell) if cell else math.nan  # a standard error from a single prompt


def _json_object(cell: str) -> dict[str, Any]:
    value = json.loads(cell)
    if not isinstance(value, dict):
        raise ValueError(cell)
    return value


_PARSERS: dict[object, Callable[[str], object]] = {
    str: str,
    int: int,
    float: _float,
    float | None: _optional_float,
    dict[str, Any]: _json_object,
}


def _read(path: Path, row_type: type[Row]) -> list[Row]:
    names = [field.name for field in fields(row_type)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such table. Give the folder of a finished run.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table ({error}).") from None
    header = lines[0] if lines else []
    if header != names:
        missing = [name for name in names if name not in header]
        extra = [name for name in header if name not in names]
        raise DataError(
            f"{path}: columns do not match; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(extra) or 'none'}; expected in this order: {', '.join(names)}."
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append(_typed(row_type, line))
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}.") from None
    return rows


def _typed(row_type: type[Row], line: Sequence[str]) -> Row:
    types = get_type_hints(row_type)
    names = [field.name for field in fields(row_type)]
    if len(line) != len(names):
        raise ValueError(f"{len(line)} cells, expected {len(names)}")
    cells = {}
    for name, cell in zip(names, line, strict=True):
        try:
            cells[name] = _PARSERS[types[name]](cell)
        except ValueError:
            raise ValueError(f"column {name!r} cannot be {cell!r}") from None
    return row_type(**cells)  # type: ignore[arg-type]
