"""Which jobs are done and which are left, decided from hashes before heavy imports."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.files import DONE, Stamp, is_as_stamped, read_record, sha_of
from alignlab.plan.experiment import FRONTIER, Job, Plan
from alignlab.results.run_records import POINTS as POINTS
from alignlab.results.run_records import damage, rows_by_run, table_of
from alignlab.results.tables import Point, read_points

FIGURES = ("frontier.csv", "curves.csv", "frontier.png", "frontier.svg")
DRAWN = (  # with the figures, by the command that draws them
    *FIGURES,
    *("comparisons.csv", "hypervolumes.csv", "effects.csv", "importances.csv", "samples.csv"),
    *("against.csv", "own_optima.csv", "texts.csv", "costs.csv", "shares.png", "shares.pdf"),
    "report.html",
    "frontier.pdf",
)


@dataclass(frozen=True)
class Todo:
    """What a call has to do.

    Args:
        jobs: To carry out, in order.
        unmerged: Finished runs whose rows are not in ``points.csv`` yet.
        frontier: Whether the frontier has to be drawn afterwards.
        damaged: A line for each damaged output, which is made again.
    """

    jobs: list[Job]
    unmerged: list[Job]
    frontier: bool
    damaged: list[str]


class Standing:
    """Which jobs of a plan are done; each job is checked once.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._done: dict[tuple[str, bool], bool] = {}
        self._damage: dict[str, str] = {}

    def done(self, name: str, *, thorough: bool = False) -> bool:
        """Whether job ``name`` is done; ``thorough`` checks contents, for a job that reads them."""
        key = name, thorough
        if key not in self._done:
            job = self._plan.jobs[name]
            damage = _damage(self._plan, job, thorough=thorough)
            self._done[key] = damage is None
            if damage:
                self._damage[name] = damage
        return self._done[key]

    def damage_of(self, jobs: Iterable[Job]) -> list[str]:
        """One message for each of ``jobs`` whose finished output is damaged."""
        found = ((job.name, self._damage.get(job.name)) for job in jobs)
        return [f"{name}: {damage}; it is made again" for name, damage in found if damage]


def is_done(plan: Plan, job: Job) -> bool:
    """Whether the job's folder holds the complete output of exactly this job."""
    return _damage(plan, job, thorough=False) is None


def _damage(plan: Plan, job: Job, *, thorough: bool) -> str | None:
    """Why a job is not done: ``None`` if it is done, an empty text if it never was."""
    path = plan.record(job)
    folder, done = path.parent, read_record(path)
    if done is None:
        return f"{path.name} is damaged" if path.exists() else ""
    if done["config_sha"] != job.config_sha:
        return ""
    stamps: dict[str, Stamp] = done["files"]
    if not all((folder / name).exists() for name in stamps):
        return ""
    if thorough:  # outputs must be intact; logs may be deleted, because no job reads them
        stamps |= {name: was for name, was in done["logs"].items() if (folder / name).exists()}
    changed = [
        name
        for name, was in stamps.items()
        if not is_as_stamped(folder / name, was, thorough=thorough)
    ]
    return f"{', '.join(changed)} is not what was written" if changed else None


def is_up_to_date(plan: Plan, job: Job, recorded: Mapping[str, list[Point]], *, done: bool) -> bool:
    """Whether a job need not be carried out: it is done, or it is a run whose rows are there.

    A run that is done needs its per-prompt table too: its rows can then be put into the tables.

    Args:
        plan: The plan.
        job: The job.
        recorded: ``run_id`` -> rows of ``points.csv``.
        done: The result of ``is_done``.
    """
    if job.objective is None:
        return done
    if plan.needless(job):
        return True
    return is_recorded(plan, job, recorded) or (done and has_table(plan, job))


def is_recorded(plan: Plan, job: Job, recorded: Mapping[str, list[Point]]) -> bool:
    """Whether the tables hold a run's rows unchanged; its weights may be gone.

    Args:
        plan: The plan.
        job: The run's.
        recorded: ``run_id`` -> rows of ``points.csv``.
    """
    rows = recorded.get(job.name, [])
    ours = bool(rows) and all(row.config_sha == job.config_sha for row in rows)
    return ours and damage(plan.results, job.name, rows) is None


def has_table(plan: Plan, job: Job) -> bool:
    """Whether the per-prompt table of a finished run is intact."""
    done = read_record(plan.folder(job) / DONE)
    return done is not None and is_as_stamped(table_of(plan.results, job.name), done["table"])


def what_to_do(plan: Plan, *, only: str | None = None, force: bool = False) -> Todo:
    """The jobs that have to run, each after its needs; unneeded inputs are left out.

    Raises:
        ConfigError: ``only``, a list of stages with commas, names one that does not exist.
    """
    recorded = rows_by_run(plan.results)
    standing = Standing(plan)
    wanted = _wanted(plan, only)
    to_do = [
        job
        for job in wanted
        if force or not is_up_to_date(plan, job, recorded, done=standing.done(job.name))
    ]
    needed = _with_needs(plan, to_do, standing)
    unmerged = [
        job
        for job in plan.runs
        if standing.done(job.name)
        and job.name not in needed
        and not is_recorded(plan, job, recorded)
    ]
    changes = any(plan.jobs[name].objective is not None for name in needed) or bool(unmerged)
    frontier = (only is None or FRONTIER in only.split(",")) and bool(plan.runs)
    frontier = frontier and (changes or force or not frontier_is_drawn(plan))
    if frontier:
        read = [plan.jobs[name] for name in plan.frontier_needs]
        missing = [job for job in read if not standing.done(job.name, thorough=True)]
        needed |= _with_needs(plan, missing, standing)
    jobs = [job for job in plan.jobs.values() if job.name in needed]
    return Todo(jobs, unmerged, frontier, standing.damage_of(jobs))


def missing(plan: Plan, names: Iterable[str]) -> tuple[list[Job], list[str]]:
    """The jobs to carry out, in order, before ``names`` can be read, and what was damaged."""
    standing = Standing(plan)
    absent = [plan.jobs[name] for name in names if not standing.done(name, thorough=True)]
    needed = _with_needs(plan, absent, standing)
    jobs = [job for job in plan.jobs.values() if job.name in needed]
    return jobs, standing.damage_of(jobs)


def _with_needs(plan: Plan, jobs: Iterable[Job], standing: Standing) -> set[str]:
    """Names of ``jobs`` and of all missing jobs that they depend on."""
    needed: set[str] = set()
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if job.name not in needed:
            needed.add(job.name)
            upstream = [name for names in job.needs.values() for name in names]
            waiting += [
                plan.jobs[name] for name in upstream if not standing.done(name, thorough=True)
            ]
    return needed


def _wanted(plan: Plan, only: str | None) -> list[Job]:
    """The jobs that were asked for: runs of the frontier, and jobs that no other job reads."""
    stages = dict.fromkeys(job.stage for job in plan.jobs.values())
    if only is not None:
        names = only.split(",")
        for name in names:
            if name not in (*stages, FRONTIER):
                raise ConfigError(f"no stage {name!r}. Stages: {', '.join([*stages, FRONTIER])}.")
        return [job for job in plan.asked if job.stage in names]
    read = {name for job in plan.jobs.values() for names in job.needs.values() for name in names}
    read.update(plan.frontier_needs)
    return [job for job in plan.asked if job.objective is not None or job.name not in read]


def frontier_sha(plan: Plan) -> str:
    """Hash of what the frontier is drawn from: the points without ``seconds``, and the pools."""
    points = plan.results / POINTS
    rows = [replace(point, seconds=0.0) for point in read_points(points)] if points.exists() else []
    return sha_of(
        {
            "points": [asdict(row) for row in rows],
            "needs": [plan.jobs[name].config_sha for name in plan.frontier_needs],
            "args": plan.frontier,
        }
    )


def frontier_is_drawn(plan: Plan) -> bool:
    """Whether table and figures exist and were made from the present rows."""
    record = read_record(frontier_record(plan))
    if record is None:  # a file without a record is checked by reading it
        record = {"inputs_sha": _plain_text(frontier_record(plan)), "files": {}}
    stamps: dict[str, Stamp] = record["files"]
    beside = {name: was for name, was in stamps.items() if (plan.results / name).exists()}
    return (
        record["inputs_sha"] == frontier_sha(plan)
        and all((plan.results / name).exists() for name in FIGURES)
        and all(is_as_stamped(plan.results / name, was) for name, was in beside.items())
    )


def _plain_text(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["inputs_sha"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def frontier_record(plan: Plan) -> Path:
    """The file with the hash of what the frontier was made from; it is kept with the tables."""
    return plan.results / "configs" / "frontier.json"
