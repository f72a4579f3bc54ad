"""Doing one job, inside a worker: a training through the command line's own path, or a call."""

import importlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError, DataError
from alignlab.evaluation.tables import Point
from alignlab.pipeline import records

Progress = Callable[[int, int], None]

STARTED = "job.json"
DONE = "done.json"


def carry_out(job: dict[str, Any], progress: Progress) -> None:
    """Do ``job`` and leave ``done.json`` in its folder as the very last thing.

    A training whose folder holds a checkpoint of the same job continues from it; everything else
    starts in an empty folder.
    """
    if "draw" in job:
        _draw(job)
        return
    folder = Path(job["folder"])
    started = records.read_json(folder / STARTED)
    same = started is not None and started["config_sha"] == job["config_sha"]
    if "call" in job["spec"] or job["fresh"] or not same:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_json(folder / STARTED, {"config_sha": job["config_sha"]})
    began = time.monotonic()
    if "call" in job["spec"]:
        _call(job, folder)
        seconds = time.monotonic() - began
    else:
        from alignlab.pipeline.training import train

        seconds = train(job, folder, progress)
    points = [] if job["run"] is None else collect_points(job, folder)
    logs = folder / "train"  # who deletes logs does not undo the training
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != STARTED and logs not in path.parents
    ]
    records.write_json(
        folder / DONE,
        {
            "config_sha": job["config_sha"],
            "seconds": round(seconds, 2),
            "files": sorted(path.relative_to(folder).as_posix() for path in files),
            "points": [asdict(point) for point in points],
        },
    )


def collect_points(job: dict[str, Any], folder: Path) -> list[Point]:
    """The rows of a finished run, and its per-prompt table, from the probe's files.

    Raises:
        DataError: The run has no evaluation.
    """
    from alignlab.evaluation.prompt_tables import read_prompt_tables, write_prompt_tables

    run = job["run"]
    tables, points = [], []
    for path in sorted(folder.rglob("points/*.parquet")):
        seconds = records.read_json(path.with_suffix(".json"))
        for table in read_prompt_tables(path):
            table = replace(
                table, objective=run["objective"], run_id=run["run_id"], seed=run["seed"]
            )
            tables.append(table)
            points.append(
                table.point(
                    experiment=run["experiment"],
                    hparams=run["hparams"],
                    config_sha=run["config_sha"],
                    git_sha=run["git_sha"],
                    seconds=0.0 if seconds is None else seconds["seconds"],
                )
            )
    if not points:
        raise DataError(
            f"{job['name']} left no evaluation, so it has no place on the frontier. "
            "Add the probe to its trainer.callbacks, or leave 'objective' out of its stage."
        )
    write_prompt_tables(Path(run["prompt_table"]), tables)
    return points


def _call(job: dict[str, Any], folder: Path) -> None:
    function = find_function(job["spec"]["call"], job["name"])
    try:
        function(out=folder, **job["spec"]["args"])
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise ConfigError(f"stage {job['name']!r}: {error}. Check its args.") from None
        raise


def _draw(job: dict[str, Any]) -> None:
    from alignlab.evaluation.commands import frontier_command

    frontier_command([Path(job["draw"])], **job["args"])


def find_function(path: str, stage: str) -> Callable[..., Any]:
    """The function at ``package.module.function``."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"stage {stage!r} calls {path!r}, which cannot be found: {error}."
        ) from None
    function: Callable[..., Any] = found
    return function
