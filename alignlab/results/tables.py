"""Rows of the tables of a results folder: ``points.csv``, and those that are made from it."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from alignlab.files import atomic_write, sha_of
from alignlab.results.csv_tables import read_typed, spell, typed, write_table

COMMANDS = Path("configs") / "commands.txt"  # what a results folder was made by
NUMBERS = ".9g"  # in points.csv: enough digits to come back as they were written
SHORT = ".6g"  # in the tables that are made from it
SHOWN = 40  # characters of a damaged row in a message
PRIMARY = 1.0  # nats: the one budget at which objectives are tested against a base
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
        """The row's identity: experiment, run, step."""
        return self.experiment, self.run_id, self.step

    @property
    def order(self) -> tuple[str, str, str, int]:
        """Sort key: the row's place in the table."""
        return self.experiment, self.objective, self.run_id, self.step


@dataclass(frozen=True, kw_only=True)
class FrontierRow:
    """The best reward an objective reaches within a KL budget; ``None`` where unknown.

    Args:
        objective: As in ``points.csv``; also ``best_of_n``, ``best_of_n_gt``, ``oracle``,
            ``oracle_proxy`` (the learned reward's own optimum), ``dual_bound`` and ``reference``.
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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Reward of ``objective`` minus that of ``other`` at a KL budget, with a 95 % interval.

    Args:
        objective: The first.
        other: The second.
        kl_budget: Nats per completion.
        difference: Mean over seeds.
        lo: Lower end of its interval.
        hi: Upper end.
        n_seeds: Seeds compared pair by pair; where the two have different ones, the smaller number.
        n_prompts: Prompts behind it.
    """

    objective: str
    other: str
    kl_budget: float
    difference: float
    lo: float
    hi: float
    n_seeds: int
    n_prompts: int


@dataclass(frozen=True, kw_only=True)
class Against:
    """How much more of the optimum's gain ``objective`` keeps than ``base``; ``None``: not reached.

    Args:
        objective: The one.
        base: The other.
        kl_budget: Nats per completion. At ``PRIMARY`` there is a test, elsewhere none.
        difference: Mean over seeds of the difference of the two shares.
        lo: Lower end of its 95 % interval, paired over prompts and seeds.
        hi: Upper end.
        p: Two-sided p-value: the level at which that interval would just touch 0.
        p_holm: The same after Holm's correction over all objectives that reach the budget.
        seeds_needed: Where the corrected test does not resolve the difference: seeds that would
            resolve one of this size with a chance of 80 %, at the strictest level of the
            correction; ``None`` where seeds alone would not.
        n_seeds: Seeds compared pair by pair.
        n_prompts: Prompts behind it.
    """

    objective: str
    base: str
    kl_budget: float
    difference: float | None = None
    lo: float | None = None
    hi: float | None = None
    p: float | None = None
    p_holm: float | None = None
    seeds_needed: int | None = None
    n_seeds: int = 0
    n_prompts: int = 0


@dataclass(frozen=True, kw_only=True)
class Order:
    """An objective in one of several results folders at KL ``PRIMARY``, and the first one's order.

    Args:
        results: Name of the folder.
        objective: The one.
        share: Of the optimum's gain; ``None`` where it does not reach this KL.
        share_lo: Lower end of its 95 % interval.
        share_hi: Upper end.
        rank: Among the folder's objectives by ``share``, from 1.
        n_seeds: Seeds that reach this KL.
        survives: Objectives, with spaces between them, that the first folder resolves to be below
            this one, as this folder does.
        reversed: Those that this folder resolves to be above it.
        not_resolved: Those of which it resolves neither.
    """

    results: str
    objective: str
    share: float | None
    share_lo: float | None
    share_hi: float | None
    rank: int | None
    n_seeds: int
    survives: str
    reversed: str
    not_resolved: str


@dataclass(frozen=True, kw_only=True)
class OwnOptimum:
    """What an objective's own optimum reaches at a KL budget: see ``evaluation.fixed_points``.

    Args:
        objective: As in ``points.csv``.
        kl_budget: Nats per completion.
        reward: Of its own optimum there, on the same prompts as the frontier.
        share: Of the optimum's gain; below 1 the objective has another fixed point than pi*.
        ess: Effective sample size that 95 % of the prompts reach or exceed.
        kept: Share of the own optimum's gain that the runs reach; below 1 for lack of data or
            optimisation.
        why: Why the cells are empty.
    """

    objective: str
    kl_budget: float
    reward: float | None = None
    share: float | None = None
    ess: float | None = None
    kept: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What an objective's completions are like at a KL budget, mean over seeds.

    Args:
        objective: As in ``points.csv``.
        kl_budget: Nats per completion.
        n_seeds: Seeds that have checkpoints around the budget.
        length: Mean length in tokens, on the hull between checkpoints, as all that follows.
        entropy: Of completions, nats per completion; ``None`` in results of older code.
        chosen_logp: Log-prob of the preferred completions of held-out pairs, nats per completion;
            ``None`` where the probe had none.
        rejected_logp: Log-prob of the other completions of these pairs.
    """

    objective: str
    kl_budget: float
    n_seeds: int
    length: float
    entropy: float | None = None
    chosen_logp: float | None = None
    rejected_logp: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an objective's runs cost, and how much its settings matter.

    Args:
        objective: As in ``points.csv``.
        runs: Runs in the tables.
        seconds: Wall time of a run's training, mean.
        cpu_seconds: CPU time of a trial with its evaluations, mean.
        generated_tokens: Of a run, mean: completions that its config samples, times the mean length
            at its checkpoints; 0 where it reads pairs. An estimate.
        trials: Trials behind its settings; those of its stages.
        trial_seconds: Wall time of all of them.
        best: Value of the best trial: mean share of the optimum's gain over the tuning budgets.
        median: Of the trials.
        worst: Of the trials.
        near_best: Share of trials with at least nine tenths of the best one's value.
    """

    objective: str
    runs: int
    seconds: float
    cpu_seconds: float | None
    generated_tokens: float | None
    trials: int
    trial_seconds: float
    best: float | None
    median: float | None
    worst: float | None
    near_best: float | None


@dataclass(frozen=True, kw_only=True)
class Hypervolume:
    """Area between an objective's frontier and the reference's reward, up to ``kl_max``.

    Divided by ``kl_max`` it is the mean gain over budgets. With two metrics, KL down and reward
    up, it is the hypervolume that the runs dominate.
    """

    objective: str
    kl_max: float
    hypervolume: float
    lo: float
    hi: float
    n_seeds: int


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Where an objective's runs with one value of a hyperparameter end, whatever their others.

    Args:
        objective: Of the runs.
        hparam: Name of the hyperparameter.
        value: Its value.
        n_runs: Runs with it, seeds counted one by one.
        kl: Their mean KL after the last step.
        kl_sd: Standard deviation over the runs; 0 for a single one.
        reward: Their mean reward after the last step.
        reward_sd: Its standard deviation.
    """

    objective: str
    hparam: str
    value: str
    n_runs: int
    kl: float
    kl_sd: float
    reward: float
    reward_sd: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much of the variance among an objective's runs a hyperparameter explains.

    ``metric`` is ``kl`` or ``reward`` after the last step; ``importance`` is omega squared of its
    values' means. The rest up to 1 is interaction, seeds and noise. ``hparam`` names several, with
    commas between them, where their values divide the runs alike.
    """

    objective: str
    metric: str
    hparam: str
    importance: float
    n_runs: int


@dataclass(frozen=True, kw_only=True)
class WinRate:
    """How often a judge prefers a policy's completions to an opponent's; a tie counts one half.

    Args:
        policy: Its name.
        against: The opponent: another policy's name, or a column of the prompts' file.
        temperature: Of the policy's sampling; 0 is greedy.
        judge: Who decided.
        rate: Mean over seeds.
        lo: Lower end of its 95 % interval over prompts and, where there are several, seeds.
        hi: Upper end.
        wilson_lo: Lower end of Wilson's interval, in which matches of one prompt are not counted as
            independent and seeds are not counted at all.
        wilson_hi: Upper end.
        wins: Matches won: over both orders, more often preferred than not.
        ties: Matches with a mean of one half, such as two contradicting verdicts.
        losses: Matches lost.
        length_controlled: Rate at equal length; ``None`` where lengths do not vary.
        length_controlled_lo: Lower end of its 95 % interval.
        length_controlled_hi: Upper end.
        consistency: Share of matches with the same verdict in both orders; ``None`` where none was
            judged in both.
        first_position: How often the completion shown first wins; 0.5 without a preference.
        length: Mean length of the policy's completions, in characters.
        against_length: Mean length of the opponent's completions, in characters.
        n_prompts: Prompts behind it.
        n_seeds: Seeds behind it.
        n_matches: Decided matches.
        left_out: Matches that the judge was asked about and that have no readable verdict.
        prompts_needed: Prompts that would resolve a difference to 0.5 of the observed size, with a
            power of 0.8; ``None`` where none would.
        seeds_needed: Seeds that would, at the present number of prompts.
    """

    policy: str
    against: str
    temperature: float
    judge: str
    rate: float
    lo: float
    hi: float
    wilson_lo: float
    wilson_hi: float
    wins: int
    ties: int
    losses: int
    length_controlled: float | None
    length_controlled_lo: float | None
    length_controlled_hi: float | None
    consistency: float | None
    first_position: float | None
    length: float
    against_length: float
    n_prompts: int
    n_seeds: int
    n_matches: int
    left_out: int
    prompts_needed: int | None
    seeds_needed: int | None


Derived = (
    FrontierRow
    | Comparison
    | Against
    | Order
    | OwnOptimum
    | Texts
    | Cost
    | Hypervolume
    | Effect
    | Importance
    | WinRate
)

POINT_COLUMNS = tuple(field.name for field in fields(Point))
FRONTIER_COLUMNS = tuple(field.name for field in fields(FrontierRow))


def read_points(path: Path) -> list[Point]:
    """Rows of a ``points.csv``.

    Raises:
        DataError: The file is missing, has other columns, or a cell that cannot be read.
    """
    return read_typed(path, Point)


def write_points(path: Path, points: Iterable[Point]) -> None:
    """Replace ``path`` by ``points``, sorted by experiment, objective, run and step."""
    rows = map(vars, sorted(points, key=lambda p: p.order))
    write_table(path, rows, POINT_COLUMNS, numbers=NUMBERS)


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
    return sha_of([spell(getattr(point, name), NUMBERS) for name in POINT_COLUMNS])


def drop_rows(path: Path, is_right: Callable[[Point], bool]) -> list[str]:
    """Remove unreadable and damaged rows from a ``points.csv``; returns one message for each.

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
        return typed(Point, next(csv.reader([line.rstrip("\r")], strict=True)))
    except (ValueError, csv.Error, StopIteration):
        return None


def read_frontier(path: Path) -> list[FrontierRow]:
    """Rows of a ``frontier.csv``; raises like ``read_points``."""
    return read_typed(path, FrontierRow)


def write_rows(path: Path, row_type: type, rows: Iterable[Derived]) -> None:
    """Replace ``path`` by ``rows``, all of ``row_type``, in the order given.

    Six digits: enough to read, few enough that a matrix product summed in another order on
    another machine still gives the same file.
    """
    names = [field.name for field in fields(row_type)]
    write_table(path, map(vars, rows), names, numbers=SHORT)
