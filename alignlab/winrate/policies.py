"""The policies that are compared: where their models are, and under which names."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.files import DONE, STARTED, sha256, sha_of
from alignlab.plan.experiment import Job, Plan, load_plan
from alignlab.plan.state import Standing
from alignlab.results.run_folder import CONFIG, MODEL, RunFolder

COLUMNS = ("chosen", "rejected", "completion")  # of a file of prompts, as opponents
NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)
RECORDS = (DONE, STARTED)


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy with the models of its seeds.

    Args:
        name: In tables and figures.
        sources: Folder or hub id of each seed's model.
        before: Text before every prompt, such as solved examples.
        best_of: A completion is the best of this many samples.
        ranked_by: Folder of the reward model that ranks them, for each of ``sources``.
    """

    name: str
    sources: tuple[str, ...]
    before: str = ""
    best_of: int = 1
    ranked_by: tuple[str, ...] = ()


def read_contender(text: str, *, scale: str | None, results: Path | None) -> Contender:
    """The policy that a command line names as ``[NAME=]MODEL[,MODEL ...]``.

    A model is a folder or hub id, a run of ``alignlab fit``, or ``EXPERIMENT:STAGE`` (or a run's
    name in place of the stage), which is the finished models of all seeds.

    Args:
        text: What was given.
        scale: Of the experiments.
        results: Their results folder, where it is not the usual one.

    Raises:
        ConfigError: No such stage or run, a stage of several grid points, or one that is not
            finished.
    """
    named = NAMED.fullmatch(text)
    given = (named[2] if named else text).split(",")
    sources = [source for each in given for source in _sources(each.strip(), scale, results)]
    if not all(sources):
        raise ConfigError(f"policy {text!r}: expected MODEL or NAME=MODEL,MODEL for its seeds.")
    return Contender(named[1] if named else _name(given[0].strip()), tuple(sources))


def _name(source: str) -> str:
    folder = Path(source)
    if (folder / DONE).is_file():
        return RunFolder(folder.resolve()).run_id
    return source.rpartition(":")[2] if ":" in source else folder.name or source


def _sources(source: str, scale: str | None, results: Path | None) -> list[str]:
    folder = Path(source)
    if (folder / CONFIG).is_file() and (folder / MODEL).is_dir():  # a run of alignlab fit
        return [str(folder / MODEL)]
    experiment, colon, name = source.rpartition(":")
    if not colon or folder.exists():
        return [source]
    plan = load_plan(Path(experiment), scale=scale, results=results)
    jobs = _jobs(plan, name, source)
    standing = Standing(plan)
    if absent := [job.name for job in jobs if not standing.done(job.name)]:
        option = f" --scale {scale}" if scale else ""
        raise ConfigError(
            f"{source}: {plan.results} has no finished {', '.join(absent)} of the present "
            f"settings. Train it: alignlab run {experiment}{option} --only {jobs[0].stage}"
        )
    return [str(plan.folder(job)) for job in jobs]


def _jobs(plan: Plan, name: str, source: str) -> list[Job]:
    """The runs of one stage and one grid point, a run a seed."""
    trained = [job for job in plan.asked if "config" in job.spec]
    own = [job for job in trained if name in (job.stage, job.name, _without_seed(job))]
    points = list(dict.fromkeys(map(_without_seed, own)))
    if len(points) > 1:
        raise ConfigError(
            f"{source}: the stage has several grid points. In place of {name!r}, name one of "
            f"{', '.join(points)}."
        )
    if not own:
        stages = dict.fromkeys(job.stage for job in trained)
        raise ConfigError(
            f"{source}: {plan.name} trains no {name!r}. Stages that train: {', '.join(stages)}."
        )
    return own


def _without_seed(job: Job) -> str:
    return job.name if job.seed is None else job.name.removesuffix(f"-s{job.seed}")


@cache
def identity_of(source: str) -> str:
    """What a model is, wherever its folder lies: a hash of its files; a hub id is its name."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return sha_of({path.name: sha256(path) for path in files if path.name not in RECORDS})


def paired(policy: Contender, other: Contender) -> list[tuple[str, str]]:
    """The models of two policies, seed by seed; a single one meets all seeds of the other.

    Raises:
        ConfigError: Both have several, and not equally many.
    """
    own, theirs = policy.sources, other.sources
    most = max(len(own), len(theirs))
    if not {len(own), len(theirs)} <= {1, most}:
        raise ConfigError(
            f"{policy.name} has {len(own)} seeds and {other.name} {len(theirs)}. Give equally many "
            "of both, or one of either."
        )
    return [(own[k % len(own)], theirs[k % len(theirs)]) for k in range(most)]
