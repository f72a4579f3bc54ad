"""``--dry-run``: print the trials, and estimate time and disk."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.pipeline.jobs import check
from alignlab.pipeline.scheduler import grouped
from alignlab.plan import state
from alignlab.plan.space import Point
from alignlab.results.csv_tables import read_table
from alignlab.results.run_folder import job_folders
from alignlab.results.tables import read_points
from alignlab.sweep.spec import Sweep

TIMES = "stages.csv"  # what each of an experiment's jobs took
SHOWN = 200  # trials printed one by one


def estimate(sweep: Sweep, workers: int) -> int:
    """Check every key, print the trials, the inputs to make, and an estimate of time and disk.

    Raises:
        ConfigError: A key that its arm does not have, or a value that it does not take.
    """
    wrong = check(sweep.to_check(), here=False)  # it may be for another machine
    if wrong:
        raise ConfigError("; ".join(f"{name}: {why}" for name, why in grouped(wrong).items()))
    print(_trials(sweep))
    print(_inputs(sweep, workers))
    print(_cost(sweep, workers))
    return 0


def _trials(sweep: Sweep) -> str:
    seeds = len(sweep.plan.seeds)
    name = sweep.keys.sampler[0]
    if sweep.points is None:
        space = [
            f"  {arm}: {', '.join(f'{d.key} in {d.distribution}' for d in dimensions)}"
            for arm, dimensions in sweep.space.arms.items()
        ]
        limit = [] if sweep.keys.trials is None else [f"{sweep.keys.trials} trials"]
        limit += [] if sweep.keys.minutes is None else [f"{sweep.keys.minutes:g} minutes"]
        return "\n".join([f"{' or '.join(limit)} by {name}, {seeds} seeds each, of", *space])
    lines = [_line(sweep, point) for point in sweep.points[:SHOWN]]
    more = [f"  ... and {len(sweep.points) - SHOWN} more"] * (len(sweep.points) > SHOWN)
    head = (
        f"{len(sweep.points)} trials ({name}), {seeds} seeds each, {seeds * len(sweep.points)} runs"
    )
    return "\n".join([head, *lines, *more])


def _line(sweep: Sweep, point: Point) -> str:
    job = sweep.jobs(point)[0]
    settings = ", ".join(f"{key}={value}" for key, value in job.hparams.items())
    return f"  {point.arm}: {settings or 'unchanged'}"


def _inputs(sweep: Sweep, workers: int) -> str:
    """The stages still to run, and their time if they have run before."""
    folder = sweep.inputs.results
    jobs = state.missing(sweep.inputs, sweep.needs)[0]
    if not jobs:
        return f"inputs in {folder}: all there"
    taken = _stage_seconds(folder / TIMES)
    seconds = sum(taken.get((job.stage, job.key), 0.0) for job in jobs)
    unknown = [job.name for job in jobs if (job.stage, job.key) not in taken]
    time = f"about {seconds / 60 / workers:.1f} minutes"
    if len(unknown) == len(jobs):
        time = "unknown"
    elif unknown:
        time += f" and that of {', '.join(unknown)}"
    return f"inputs in {folder}: {', '.join(job.name for job in jobs)} to make; time: {time}"


def _cost(sweep: Sweep, workers: int) -> str:
    """From finished runs of the same stages, in the sweep's or the experiment's results."""
    known = {arm: _of_arm(sweep, arm) for arm in sweep.stages}
    unknown = [arm for arm, (seconds, _) in known.items() if seconds is None]
    if unknown:
        return (
            f"time and disk: unknown, because no run of {', '.join(unknown)} is finished in "
            f"{sweep.plan.results} or {sweep.inputs.results}"
        )
    runs = _runs_by_arm(
        sweep, {arm: seconds or 0.0 for arm, (seconds, _) in known.items()}, workers
    )
    seconds = sum(runs[arm] * (known[arm][0] or 0.0) for arm in runs) / workers
    time = f"time: about {seconds / 60:.1f} minutes"
    if sweep.keys.minutes is not None and seconds > 60 * sweep.keys.minutes:
        time = f"time: {sweep.keys.minutes:g} minutes, plus the runs in progress at that time"
    sizes = {arm: size for arm, (_, size) in known.items() if size is not None}
    if len(sizes) < len(known):
        gone = ", ".join(known.keys() - sizes)
        return f"{time}; disk: unknown, because only the tables of {gone} are left"
    disk = sum(runs[arm] * size for arm, size in sizes.items())
    return f"{time}; disk: about {disk / 2**20:.0f} MB"


def _runs_by_arm(sweep: Sweep, seconds: Mapping[str, float], workers: int) -> dict[str, float]:
    """How many runs each arm will have, assuming that a sampler tries all arms equally."""
    seeds = len(sweep.plan.seeds)
    if sweep.points is not None:
        return {arm: seeds * sum(p.arm == arm for p in sweep.points) for arm in seconds}
    trials = math.inf if sweep.keys.trials is None else sweep.keys.trials
    if sweep.keys.minutes is not None:
        mean = seeds * max(statistics.mean(seconds.values()), 1e-9)
        trials = min(trials, 60 * sweep.keys.minutes * workers / mean)
    return {arm: seeds * trials / len(seconds) for arm in seconds}


def _of_arm(sweep: Sweep, arm: str) -> tuple[float | None, float | None]:
    """Median seconds and bytes of a finished run of ``arm``, or of its namesake stage."""
    for results in (sweep.plan.results, sweep.inputs.results):
        runs = [run for run in job_folders(results) if run.stage == arm and run.done_file.exists()]
        seconds = [done["seconds"] for done in (run.done for run in runs) if done]
        if seconds:
            return statistics.median(seconds), statistics.median(_size(run.path) for run in runs)
        seconds = _recorded_seconds(results / state.POINTS, arm)
        if seconds:
            return statistics.median(seconds), None
    return None, None


def _stage_seconds(times: Path) -> dict[tuple[str, str], float]:
    """(stage, job) -> seconds, of the experiment's own earlier calls."""
    if not times.exists():
        return {}
    rows = read_table(times, min_rows=0)
    return {(row["stage"], row["job"]): float(row["seconds"]) for row in rows}


def _recorded_seconds(points: Path, arm: str) -> list[float]:
    """Training time of each run in the tables, for runs whose folders are gone."""
    longest: dict[str, float] = {}
    for row in read_points(points) if points.exists() else []:
        if row.objective == arm:
            longest[row.run_id] = max(row.seconds, longest.get(row.run_id, 0.0))
    return list(longest.values())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
