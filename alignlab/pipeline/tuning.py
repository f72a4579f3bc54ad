"""Find the settings of a stage by trials: the same budget for every objective, exactly resumable.

A trial is a training run like any other, evaluated on the tuning prompts. Its score at a KL budget
is its share of the optimum's gain: the gain of the trial's hull over the reference, divided by the
optimum's gain at that KL. The first third of the settings are quasi-random (scrambled Sobol
points). After that, TPE samplers take turns, one for each budget; each knows the shares of all
trials at its budget. A single sampler for the mean share would look for one run that does well at
all budgets, and would miss the best run at each.

Only a record of each finished trial is stored. Samplers are seeded, so a continued search replays
the recorded values from the first trial on, until it reaches the interrupted trial, which continues
from its checkpoint.
"""

import copy
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from pydantic import Field

from alignlab.errors import ConfigError, DataError
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.evaluation.oracle import optimum_at_kl, reference_reward
from alignlab.files import read_record, stamp, write_record
from alignlab.pipeline.messages import Reporter, Trained
from alignlab.pipeline.training import train
from alignlab.plan import overlay
from alignlab.plan.experiment import short_names
from alignlab.plan.schema import Keys, Text, check
from alignlab.plan.space import DimensionKeys, Point, Space, build, design, space_of
from alignlab.results.csv_tables import write_table
from alignlab.results.pool import POOL_NAME, Pool
from alignlab.results.prompt_tables import read_scores
from alignlab.results.run_folder import evaluations_in
from alignlab.training import fit

COMPLETE, DIVERGED = "complete", "diverged"
STAGE = ""  # the only arm of the space
FIRST = 3  # one trial of this number is quasi-random
DIGITS = 3  # of a setting: what the tables show is what was trained


class SpaceKeys(Keys):
    """The values that the trials take."""

    space: dict[Text, DimensionKeys] = Field(min_length=1)


def space_in(tune: Mapping[str, Any]) -> Space:
    """The space of a job's ``tune`` keys, sorted, so that the order in the YAML does not matter.

    Raises:
        ConfigError: A key whose values mean nothing.
    """
    dimensions = check(SpaceKeys, {"space": tune["space"]}, "tune").space
    return space_of({}, {STAGE: dict(sorted(dimensions.items()))})


def check_trials(spec: Mapping[str, Any], *, here: bool = True) -> None:
    """Check the trials' config with each choice, or both ends of the range, of every key.

    Args:
        spec: A tuning job's, resolved.
        here: The trials will run on this machine.

    Raises:
        ConfigError: As ``fit.check``, or the trials would use several devices.
    """
    trainer = spec["config"].get("trainer") or {}
    if trainer.get("devices", 1) not in (1, "1") or trainer.get("strategy", "auto") != "auto":
        raise ConfigError(
            "tune: trials train in one process on one device. Set trainer.devices to 1 and leave "
            "out trainer.strategy, or replace 'tune' by a grid."
        )
    ends = {each.key: each.ends() for each in space_in(spec["tune"]).arms[STAGE]}
    for turn in range(max(map(len, ends.values()))):
        settings = {key: values[turn % len(values)] for key, values in ends.items()}
        fit.check(with_settings(spec["config"], settings), here=here, evaluated=True)


def with_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` with ``settings``, dotted key -> value."""
    changed = copy.deepcopy(dict(config))
    for dotted, value in settings.items():
        overlay.set_dotted(changed, dotted, value)
    return changed


class Search:
    """Proposes settings from the values of earlier ones; the same values give the same proposals.

    Args:
        space: What is varied.
        trials: How many there will be.
        seed: Of the samplers.
        goals: How many values each trial has. After the first third, trials are chosen for one
            goal after another.
        first: Settings to begin with, dotted key -> value; none if it is empty.
    """

    def __init__(
        self,
        space: Space,
        trials: int,
        seed: int,
        *,
        goals: int,
        first: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        points = design(("qmc", {"seed": seed}), space, max(1, trials // FIRST)) or []
        points = [Point(STAGE, dict(first)), *points] if first else points
        samplers = [
            build("tpe", {"seed": seed + goal, "n_startup_trials": len(points)})
            for goal in range(goals)
        ]
        self._space, self._spread, self._trials = space, len(points), 0
        self._studies = [optuna.create_study(direction="maximize", sampler=s) for s in samplers]
        for point in points:
            self._studies[0].enqueue_trial(space.params(point))

    def ask(self) -> dict[str, Any]:
        """The next settings, dotted key -> value, numbers with ``DIGITS`` digits."""
        self._goal = max(0, self._trials - self._spread) % len(self._studies)
        self._asked = self._studies[self._goal].ask()
        self._trials += 1
        point = self._space.suggest(self._asked)
        return {key: _rounded(value) for key, value in point.values.items()}

    def tell(self, values: Sequence[float]) -> None:
        """Record the values of the settings asked last, one for each goal."""
        params, distributions = self._asked.params, self._asked.distributions
        for goal, (study, value) in enumerate(zip(self._studies, values, strict=True)):
            if goal == self._goal:
                study.tell(self._asked, value)
            else:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=distributions, value=value
                    )
                )


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


class Bench:
    """The optimum against which trials are measured, on the prompts of a pool.

    Args:
        pool: Samples of the reference on the tuning prompts.
        budgets: KL in nats.

    Raises:
        DataError: The pool is too small to estimate the optimum at a budget.
    """

    def __init__(self, pool: Pool, budgets: Sequence[float]) -> None:
        self.prompt_ids, self.budgets = frozenset(pool.prompt_ids), budgets
        self.reference = float(reference_reward(pool).mean())
        optima = [optimum_at_kl(pool, budget) for budget in budgets]
        for budget, found in zip(budgets, optima, strict=True):
            if found is None or not found.reliable:
                raise DataError(
                    f"tune: the pool has too few samples to estimate the optimum at KL {budget:g}. "
                    "Draw more samples, add proposals, or use smaller budgets."
                )
        self.optimal = [float(found.reward.mean()) for found in optima if found is not None]

    def shares(self, evaluations: Sequence[Sequence[float]]) -> list[float]:
        """Share of the optimum's gain within each budget.

        Where the trial's hull ends or falls, its highest reward so far counts, because a policy of
        KL 0.9 is also within KL 1. If it counted as 0 there, samplers would learn to overshoot the
        budget, which costs reward at the budget itself.

        Args:
            evaluations: Step, KL and reward of each.
        """
        kl = np.array([[0.0, *(each[1] for each in evaluations)]])
        reward = np.array([[self.reference, *(each[2] for each in evaluations)]])
        hull = hull_vertices(kl, reward)[0]
        level = np.maximum.accumulate(reward[:, hull], axis=1)
        found = interpolate(kl[:, hull], level, np.array(self.budgets))[0]  # level at its end, too
        return [
            float((value - self.reference) / (optimal - self.reference))
            for value, optimal in zip(found, self.optimal, strict=True)
        ]

    def reached(self, evaluations: Sequence[Sequence[float]]) -> list[bool]:
        """Whether the largest KL of ``evaluations`` is at or beyond each budget."""
        largest = max((each[1] for each in evaluations), default=0.0)
        return [largest >= budget for budget in self.budgets]


def tune(job: Mapping[str, Any], folder: Path, reporter: Reporter) -> Trained:
    """Make the trials that ``folder`` lacks, choose settings, write the table and the record.

    Args:
        job: The scheduler's message about a tuning job.
        folder: For the records of trials and the run in progress.
        reporter: Hears of the progress, and of the choice.

    Raises:
        ConfigError: Recorded trials are of other settings than those asked for.
        DataError: A pool of other prompts, or of too few samples.
    """
    keys, path = job["spec"]["tune"], Path(job["record"])
    bench = Bench(Pool.load(Path(keys["pool"]) / POOL_NAME), keys["budgets"])
    search = Search(
        space_in(keys),
        keys["trials"],
        keys["seed"],
        goals=len(keys["budgets"]),
        first=keys.get("first") or {},
    )
    trials: list[dict[str, Any]] = []
    path.unlink(missing_ok=True)  # of other trials
    for number in range(keys["trials"]):
        settings = search.ask()
        record = folder / f"trial-{number:02d}.json"
        found = read_record(record)
        if found is None:
            run = TrialReporter(reporter, number, keys["trials"])
            found = _trial({**job, "record": ""}, settings, record.with_suffix(""), run, bench)
            write_record(record, found)
        elif found["settings"] != settings:
            raise ConfigError(
                f"{record}: the trial had {found['settings']}, but the search now asks for "
                f"{settings}: another Optuna version wrote it. Delete {folder} to begin again."
            )
        shutil.rmtree(record.with_suffix(""), ignore_errors=True)  # weights and logs
        search.tell(found["shares"])
        trials.append(found)
        write_table(path.with_suffix(".csv"), _rows(trials, bench, {}))
    chosen = choose(trials, bench)
    table = path.with_suffix(".csv")
    write_table(table, _rows(trials, bench, {each["budget"]: each["trial"] for each in chosen}))
    stamps = {table.name: stamp(table)}
    sha = job["config_sha"]
    write_record(path, {"config_sha": sha, "chosen": chosen, "files": stamps, "logs": {}})
    for line in _said(chosen):
        reporter.say(f"{job['name']}: {line}")
    return Trained(sum(trial["seconds"] for trial in trials), {}, None)


class TrialReporter(Reporter):
    """Reports a trial's steps as part of all trials' steps; its evaluations are not reported.

    Args:
        out: Reporter of the tuning job.
        number: Of the trial, from 0.
        trials: How many there are.
    """

    def __init__(self, out: Reporter, number: int, trials: int) -> None:
        super().__init__(None)
        self._job, self._number, self._trials = out, number, trials

    def progress(self, step: int, total: int) -> None:
        """Report the steps of all trials so far."""
        self._job.progress(self._number * total + step, self._trials * total)

    def say(self, line: str) -> None:
        """Print a line."""
        self._job.say(line)


def _trial(
    job: dict[str, Any],
    settings: Mapping[str, Any],
    folder: Path,
    reporter: Reporter,
    bench: Bench,
) -> dict[str, Any]:
    """Train with ``settings`` in ``folder``, from its checkpoint if it has one."""
    config = with_settings(job["spec"]["config"], settings)
    state, began, cpu = COMPLETE, time.monotonic(), time.process_time()
    try:
        seconds = train({**job, "spec": {"config": config}}, folder, reporter).seconds
        evaluations = list(_evaluations(folder, bench))
    except FloatingPointError:
        state, evaluations, seconds = DIVERGED, [], time.monotonic() - began
    shares = bench.shares(evaluations)
    return {
        "settings": dict(settings),
        "state": state,
        "shares": shares,
        "value": sum(shares) / len(shares),
        "evaluations": evaluations,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
    }


def _evaluations(folder: Path, bench: Bench) -> Iterator[list[float]]:
    """Step, KL and reward of each evaluation.

    Raises:
        DataError: The evaluations use other prompts than the pool.
        FloatingPointError: A KL or reward is not finite.
    """
    for each in evaluations_in(folder):
        scores = read_scores(each.scores)
        if set(scores.prompt_ids) != bench.prompt_ids:
            raise DataError(
                f"tune: the trials are evaluated on {len(scores.prompt_ids)} prompts, which are "
                f"not the {len(bench.prompt_ids)} of the pool. Give probe and pool the same "
                "prompts and the same limit."
            )
        means = scores.means()
        if not (isfinite(means["kl"]) and isfinite(means["reward"])):
            raise FloatingPointError(f"step {each.step}: {means}")
        yield [each.step, means["kl"], means["reward"]]


def choose(trials: Sequence[Mapping[str, Any]], bench: Bench) -> list[dict[str, Any]]:
    """Choose for each budget the trial whose hull is highest there, of those that reach it.

    Ties go to the earliest trial.

    Returns:
        ``budget``, ``trial``, ``settings`` and ``share``; all but the first are ``None`` if no
        trial reached the budget.
    """
    chosen = []
    for place, budget in enumerate(bench.budgets):
        able = [n for n, t in enumerate(trials) if bench.reached(t["evaluations"])[place]]
        best = max(able, key=lambda n: trials[n]["shares"][place], default=None)
        own = {"settings": None, "shares": None} if best is None else trials[best]
        share = own["shares"] and own["shares"][place]
        chosen.append(
            {"budget": budget, "trial": best, "settings": own["settings"], "share": share}
        )
    return chosen


def _rows(
    trials: Sequence[Mapping[str, Any]], bench: Bench, chosen: Mapping[float, int | None]
) -> list[dict[str, Any]]:
    """The tuning table: a row per trial."""
    return [
        {
            "trial": number,
            "settings": short_names(trial["settings"]),
            **{
                f"share_{budget:g}": share
                for budget, share in zip(bench.budgets, trial["shares"], strict=True)
            },
            "value": trial["value"],
            "last_kl": trial["evaluations"][-1][1] if trial["evaluations"] else None,
            "seconds": trial["seconds"],
            "cpu_seconds": trial["cpu_seconds"],
            "state": trial["state"],
            "chosen_for": " ".join(f"{b:g}" for b, own in chosen.items() if own == number),
        }
        for number, trial in enumerate(trials)
    ]


def _said(chosen: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The choice, a line per budget."""
    for each in chosen:
        if each["trial"] is None:
            yield f"no trial reached KL {each['budget']:g}, so there are no runs for it"
        else:
            settings = ", ".join(
                f"{key} {value}" for key, value in short_names(each["settings"]).items()
            )
            yield (
                f"KL {each['budget']:g}: trial {each['trial']} has {each['share']:.3f} of the "
                f"optimum's gain, with {settings}"
            )
