"""The records of a finished job: rows in the tables, its config, and its time."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from alignlab.files import DONE, atomic_write, read_record, stamp, write_record
from alignlab.plan import overlay, state
from alignlab.plan.experiment import CHECK, FRONTIER, Job, Plan
from alignlab.results.run_records import POINTS, keep_record
from alignlab.results.tables import COMMANDS, Point, merge_points

TIME = re.compile(r"([^,]+),([^,]+),\d+\.\d")  # a row of stages.csv


def record(plan: Plan, job: Job) -> None:
    """Put the output of a finished job into the tables."""
    if job.stage == FRONTIER:
        drawn = [plan.results / name for name in state.DRAWN]
        stamps = {path.name: stamp(path) for path in drawn if path.exists()}
        record = {"inputs_sha": state.frontier_sha(plan), "files": stamps}
        write_record(state.frontier_record(plan), record)
    elif job.stage != CHECK:
        if job.objective is not None:
            merge(plan, job)
        _write_config(plan, job)


def merge(plan: Plan, job: Job) -> None:
    """Put a finished run's rows into ``points.csv``."""
    done = read_record(plan.folder(job) / DONE)
    assert done is not None
    merge_points(plan.results / POINTS, [Point(**row) for row in done["points"]])
    keep_record(plan.results, job.name, done)


def keep_command(results: Path, words: Sequence[str]) -> None:
    """Add a command to the list of those that made a results folder, unless it is there."""
    path = results / COMMANDS
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    lines = [line for line in text.split("\n") if line]
    command = shlex.join(["alignlab", *words])
    if command not in lines:
        atomic_write(path, ("\n".join([*lines, command]) + "\n").encode())


def write_times(plan: Plan) -> None:
    """Write ``stages.csv``: the seconds that every finished job took, over all continuations.

    Rows of jobs that this call was not asked for (other seeds, say) stay.
    """
    path = plan.results / "stages.csv"
    text = path.read_bytes().decode(errors="replace") if path.exists() else ""
    found = filter(None, map(TIME.fullmatch, text.split("\n")))
    taken = {match.groups(): match[0] for match in found}
    for job in plan.jobs.values():
        done = read_record(plan.folder(job) / DONE)
        if done:
            taken[job.stage, job.key] = f"{job.stage},{job.key},{done['seconds']:.1f}"
    new = "\n".join(["stage,job,seconds", *taken.values()]) + "\n"
    if taken and new != text:
        atomic_write(path, new.encode())


def mend_configs(plan: Plan) -> list[str]:
    """Write damaged config files again; returns one message for each."""
    said = []
    for job in plan.asked:
        path = _config_of(plan, job)
        header, _, text = path.read_bytes().partition(b"\n") if path.exists() else (b"", b"", b"")
        known, _, sha = header.decode(errors="replace").rpartition(", sha256 ")
        if known == _title(job) and sha != hashlib.sha256(text).hexdigest():
            said.append(f"{path} is not what was written; it is written again")
            _write_config(plan, job)
    return said


def _config_of(plan: Plan, job: Job) -> Path:
    return plan.results / "configs" / f"{job.name}.yaml"


def _title(job: Job) -> str:
    return f"# {job.name}, config_sha {job.config_sha}"


def _write_config(plan: Plan, job: Job) -> None:
    spec = plan.resolved(job)
    text = overlay.write_yaml(spec if job.tunes else spec.get("config", spec)).encode()
    header = f"{_title(job)}, sha256 {hashlib.sha256(text).hexdigest()}\n"
    atomic_write(_config_of(plan, job), header.encode() + text)
