"""Do one job in a worker: a training run, as ``alignlab fit`` does it, or a call."""

import random
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError, DataError
from alignlab.files import (
    DONE,
    STARTED,
    TRAIN,
    Stamp,
    is_as_stamped,
    read_record,
    stamp,
    write_record,
)
from alignlab.pipeline.messages import Reporter, Trained
from alignlab.results.run_folder import RunFolder
from alignlab.results.tables import Point


def carry_out(job: dict[str, Any], reporter: Reporter) -> dict[str, str]:
    """Do ``job``: a stage's, or one of the pipeline's own.

    Returns:
        For a check: jobs with wrong settings -> the reason. Empty otherwise.
    """
    spec = job["spec"]
    if "check" in spec:
        return check(spec["check"])
    if "frontier" in spec:
        _draw(spec["frontier"])
    else:
        _carry_out_stage(job, reporter)
    return {}


def check(specs: dict[str, Any], *, here: bool = True) -> dict[str, str]:
    """Find the jobs whose settings are wrong, with the reason, before any job runs.

    Args:
        specs: Job -> its entry in ``Plan.to_check``.
        here: They will run on this machine.
    """
    wrong = {}
    for name, spec in specs.items():
        try:
            if "call" in spec:
                from alignlab.pipeline.calls import check_call

                check_call(spec["call"], spec["args"])
            elif "tune" in spec:
                from alignlab.pipeline.tuning import check_trials

                check_trials(spec, here=here)
            else:
                from alignlab.training import fit

                fit.check(spec["config"], here=here, evaluated=spec.get("evaluated", False))
        except ConfigError as error:
            wrong[name] = str(error)
    return wrong


def _carry_out_stage(job: dict[str, Any], reporter: Reporter) -> None:
    """Do a stage's job; writing ``done.json`` into its folder is the last step.

    A training run whose folder holds a checkpoint of the same job continues from it, and tuning
    continues after its finished trials. Everything else starts in an empty folder.
    """
    folder = Path(job["folder"])
    if not job["fresh"] and _collect_again(job, folder):
        return
    started = read_record(folder / STARTED)
    if started is None and (folder / STARTED).exists():
        reporter.say(f"{job['name']}: {folder / STARTED} is damaged; starting over")
    same = started is not None and started["config_sha"] == job["config_sha"]
    if "call" in job["spec"] or job["fresh"] or not same:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)
    write_record(folder / STARTED, {key: job[key] for key in ("config_sha", "git_sha")})
    began = time.monotonic()
    if "call" in job["spec"]:
        _call(job, folder)
        trained = Trained(time.monotonic() - began, {}, None)
    elif "tune" in job["spec"]:
        from alignlab.pipeline.tuning import tune

        trained = tune(job, folder, reporter)
    else:
        from alignlab.pipeline.training import train

        trained = train(job, folder, reporter)
    write_record(
        folder / DONE,
        {
            "config_sha": job["config_sha"],
            "seconds": round(trained.seconds, 2),
            "metrics": trained.metrics,
            "stopped": trained.stopped,
            **_rows(job, folder),
            **_stamps(folder),
        },
    )
    if "call" not in job["spec"]:
        from alignlab.callbacks import checkpoints

        checkpoints.remove(folder / TRAIN)


def _collect_again(job: dict[str, Any], folder: Path) -> bool:
    """Rewrite the per-prompt table of a finished run; returns False if more is missing."""
    done = read_record(folder / DONE)
    if done is None or done["config_sha"] != job["config_sha"] or job["run"] is None:
        return False
    stamps = done["files"] | done["logs"]
    if not all(is_as_stamped(folder / n, was, thorough=True) for n, was in stamps.items()):
        return False
    write_record(folder / DONE, done | _rows(job, folder))
    return True


def _rows(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    if job["run"] is None:
        return {"points": [], "table": None}
    points = collect_points(job, folder)
    return {
        "points": [asdict(point) for point in points],
        "table": stamp(Path(job["run"]["prompt_table"])),
    }


def _stamps(folder: Path) -> dict[str, dict[str, Stamp]]:
    """Stamps of what a job wrote: its output, and its logs, which may be deleted later."""
    found: dict[str, dict[str, Stamp]] = {"files": {}, "logs": {}}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.suffix != ".ckpt" and name != STARTED:
            kind = "logs" if name.startswith(f"{TRAIN}/") else "files"
            found[kind][name] = stamp(path)
    return found


def collect_points(job: dict[str, Any], folder: Path) -> list[Point]:
    """The rows of a finished run, and its per-prompt table, from the probe's files.

    Raises:
        DataError: The run has no evaluation.
        FloatingPointError: An evaluation is not finite.
    """
    from alignlab.results.prompt_tables import collect

    evaluations = RunFolder(folder).evaluations
    if not evaluations:
        raise DataError(
            f"{job['name']} left no evaluation, so it has no place on the frontier. "
            "Add a probe to its config, or leave 'objective' out of its stage."
        )
    names = dict(job["run"])
    return collect(evaluations, Path(names.pop("prompt_table")), **names)


def _call(job: dict[str, Any], folder: Path) -> None:
    from alignlab.pipeline.calls import find_function

    args = job["spec"]["args"]
    function = find_function(job["spec"]["call"], args)
    _same_start()
    function(out=folder, **args)


def _same_start() -> None:
    """Set the global random states, so that they do not depend on the worker's earlier jobs.

    A function should draw from a seed among its arguments; this covers one that does not.
    """
    random.seed(0)
    for library, seed in (("numpy.random", "seed"), ("torch", "manual_seed")):
        if library in sys.modules:
            getattr(sys.modules[library], seed)(0)


def _draw(spec: dict[str, Any]) -> None:
    from alignlab.report.command import frontier_command

    frontier_command([Path(spec["results"])], **spec["args"])
