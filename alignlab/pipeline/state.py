"""What is done, and therefore what is left to do: decided from hashes, before anything heavy."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.evaluation.tables import read_points
from alignlab.pipeline import records
from alignlab.pipeline.jobs import DONE
from alignlab.pipeline.plan import Job, Plan

FRONTIER = "frontier"
POINTS = "points.csv"
FIGURES = ("frontier.csv", "curves.csv", "frontier.png", "frontier.svg")


@dataclass(frozen=True)
class Todo:
    """What a call has to do.

    Args:
        jobs: To carry out, in order.
        unmerged: Finished runs whose rows are not in ``points.csv`` yet.
        frontier: Whether the frontier has to be drawn afterwards.
    """

    jobs: list[Job]
    unmerged: list[Job]
    frontier: bool


def is_done(plan: Plan, job: Job) -> bool:
    """Whether the job's folder holds what this very job wrote, whole."""
    folder = plan.folder(job)
    done = records.read_json(folder / DONE)
    return (
        done is not None
        and done["config_sha"] == job.config_sha
        and all((folder / name).exists() for name in done["files"])
    )


def is_recorded(plan: Plan, job: Job, recorded: dict[str, str]) -> bool:
    """Whether a run's rows stand in the tables, with or without its weights."""
    return recorded.get(job.name) == job.config_sha and prompt_table(plan, job).exists()


def prompt_table(plan: Plan, job: Job) -> Path:
    """The run's per-prompt table."""
    return plan.results / "points" / f"{job.name}.parquet"


def what_to_do(plan: Plan, *, only: str | None = None, force: bool = False) -> Todo:
    """The jobs that have to run, each after what it needs, and nothing that nobody needs.

    Raises:
        ConfigError: ``only``, stages with commas between them, names one that is not there.
    """
    recorded = records.recorded_runs(plan.results / POINTS)
    done = {name: is_done(plan, job) for name, job in plan.jobs.items()}

    def standing(job: Job) -> bool:
        if job.objective is not None:
            return done[job.name] or is_recorded(plan, job, recorded)
        return done[job.name]

    wanted = _wanted(plan, only)
    forced = {job.name for job in wanted} if force else set()
    to_do = [job for job in wanted if job.name in forced or not standing(job)]
    needed = _with_needs(plan, to_do, done)
    unmerged = [
        job
        for job in plan.runs
        if done[job.name] and job.name not in needed and not is_recorded(plan, job, recorded)
    ]
    changes = any(plan.jobs[name].objective is not None for name in needed) or bool(unmerged)
    frontier = (only is None or FRONTIER in only.split(",")) and bool(plan.runs)
    frontier = frontier and (changes or force or not frontier_is_drawn(plan))
    if frontier:
        missing = [plan.jobs[name] for name in plan.frontier_needs if not done[name]]
        needed |= _with_needs(plan, missing, done)
    return Todo([job for job in plan.jobs.values() if job.name in needed], unmerged, frontier)


def missing(plan: Plan, names: Iterable[str]) -> list[Job]:
    """The jobs to carry out, in order, before the folders of ``names`` are all there."""
    done = {name: is_done(plan, job) for name, job in plan.jobs.items()}
    needed = _with_needs(plan, [plan.jobs[name] for name in names if not done[name]], done)
    return [job for job in plan.jobs.values() if job.name in needed]


def _with_needs(plan: Plan, jobs: Iterable[Job], done: Mapping[str, bool]) -> set[str]:
    """Names of ``jobs`` and of whatever they need that is not there, however far back."""
    needed: set[str] = set()
    waiting = list(jobs)
    while waiting:
        job = waiting.pop()
        if job.name not in needed:
            needed.add(job.name)
            upstream = [plan.jobs[name] for names in job.needs.values() for name in names]
            waiting += [need for need in upstream if not done[need.name]]
    return needed


def _wanted(plan: Plan, only: str | None) -> list[Job]:
    """The jobs somebody asked for: the frontier runs and the loose ends that nothing reads."""
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
    """Hash of what the frontier is drawn from: the points but for ``seconds``, and the pools."""
    points = plan.results / POINTS
    rows = [replace(point, seconds=0.0) for point in read_points(points)] if points.exists() else []
    return records.sha_of(
        {
            "points": [asdict(row) for row in rows],
            "needs": [plan.jobs[name].config_sha for name in plan.frontier_needs],
            "args": plan.frontier,
        }
    )


def frontier_is_drawn(plan: Plan) -> bool:
    """Whether table and figures stand and were made from the rows that stand now."""
    record = records.read_json(frontier_record(plan))
    return (
        record is not None
        and record["inputs_sha"] == frontier_sha(plan)
        and all((plan.results / name).exists() for name in FIGURES)
    )


def frontier_record(plan: Plan) -> Path:
    """Where it is noted what the frontier was made from; beside the tables, and kept with them."""
    return plan.results / "configs" / "frontier.json"
