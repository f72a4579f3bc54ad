"""``--dry-run``: what would be tried, and about what it would take."""

import statistics
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.evaluation.tables import read_points
from alignlab.pipeline import records, state
from alignlab.pipeline.jobs import DONE, check
from alignlab.pipeline.plan import Plan
from alignlab.sweep.space import Point
from alignlab.sweep.spec import Sweep

SHOWN = 200  # trials printed one by one


def estimate(sweep: Sweep, plan: Plan, workers: int) -> int:
    """Check every key, print the trials, the inputs to make, and an estimate of time and disk.

    Raises:
        ConfigError: A key that its arm does not have, or a value that it does not take.
    """
    wrong = check({name: plan.resolved(job) for name, job in sweep.probes().items()})
    if wrong:
        raise ConfigError("; ".join(f"{name}: {why}" for name, why in wrong.items()))
    print(_trials(sweep))
    to_make = [job.name for job in state.missing(sweep.plan, sweep.needs)]
    folder = sweep.plan.results
    print(f"inputs in {folder}: {', '.join(to_make) or 'all there'}" + " to make" * bool(to_make))
    print(_cost(sweep, plan, workers))
    return 0


def _trials(sweep: Sweep) -> str:
    seeds = len(sweep.plan.seeds)
    name = sweep.sampler[0]
    if sweep.points is None:
        space = [
            f"  {arm}: {', '.join(f'{d.key} in {d.distribution}' for d in dimensions)}"
            for arm, dimensions in sweep.space.arms.items()
        ]
        limit = [f"{sweep.trials} trials"] * (sweep.trials is not None)
        limit += [f"{sweep.minutes:g} minutes"] * (sweep.minutes is not None)
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
    return f"  {point.arm}: {settings or 'as it is'}"


def _cost(sweep: Sweep, plan: Plan, workers: int) -> str:
    """From finished runs of the same stages, in the sweep's or the experiment's results."""
    known = {arm: _of_arm(sweep, plan, arm) for arm in sweep.stages}
    unknown = [arm for arm, (seconds, _) in known.items() if seconds is None]
    if unknown:
        return (
            f"time and disk: unknown, no run of {', '.join(unknown)} is finished yet in "
            f"{plan.results} or {sweep.plan.results}"
        )
    trials = sweep.trials or 0
    arms = [p.arm for p in sweep.points] if sweep.points is not None else list(known) * trials
    share = 1.0 if sweep.points is not None else 1 / len(known)
    runs = share * len(plan.seeds)
    seconds = sum(known[arm][0] or 0.0 for arm in arms) * runs / workers
    disk = sum(known[arm][1] for arm in arms) * runs
    limit = f", at most {sweep.minutes:g}" if sweep.minutes is not None else ""
    return f"time: about {seconds / 60:.1f} minutes{limit}; disk: about {disk / 2**20:.0f} MB"


def _of_arm(sweep: Sweep, plan: Plan, arm: str) -> tuple[float | None, float]:
    """Median seconds and bytes of a finished run of ``arm``, or of its namesake stage."""
    for results in (plan.results, sweep.plan.results):
        folders = [path.parent for path in (results / "stages" / arm).glob(f"*/{DONE}")]
        done = [records.read_json(folder / DONE) or {} for folder in folders]
        seconds = [own["seconds"] for own in done if "seconds" in own]
        if seconds:
            return statistics.median(seconds), statistics.median(map(_size, folders))
        seconds = _recorded_seconds(results / state.POINTS, arm)
        if seconds:
            return statistics.median(seconds), 0.0
    return None, 0.0


def _recorded_seconds(points: Path, arm: str) -> list[float]:
    """Training time of each run in the tables, where only they are left."""
    longest: dict[str, float] = {}
    for row in read_points(points) if points.exists() else []:
        if row.objective == arm:
            longest[row.run_id] = max(row.seconds, longest.get(row.run_id, 0.0))
    return list(longest.values())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
