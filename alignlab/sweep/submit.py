"""A sweep as several jobs: a SLURM array, or processes of this machine, through submitit.

Each job is the ordinary command with a results folder of its own. Jobs share the study through its
storage, and the experiment's inputs through their lock. This process waits and then draws the
results of all jobs. If it ends before they do, the same call, or ``alignlab frontier``, draws them
later.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alignlab.errors import ConfigError
from alignlab.pipeline.lock import make_folder
from alignlab.pipeline.progress import say
from alignlab.plan import state
from alignlab.report.command import frontier_command
from alignlab.results.run_records import STUDY
from alignlab.sweep import table
from alignlab.sweep.run import run_sweep
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.storage import has_password, open_storage, shown
from alignlab.sweep.study import Slots, open_study

if TYPE_CHECKING:
    import submitit

DAY = 24 * 60  # minutes that a job may take unless the user sets another limit
LOGS = "submitted"


@dataclass(frozen=True)
class Work:
    """The work of a job: run every trial of the sweep that it can claim.

    submitit writes it to a file, so it holds no password.

    Args:
        sweep: The sweep's YAML.
        results: Folder of the whole; a job works in ``job-N`` below it.
        storage: URL of the study.
        workers: Processes of each job.
    """

    sweep: Path
    results: Path
    storage: str
    workers: int

    def __call__(self, number: int) -> int:
        """Run as job ``number``; returns the exit status."""
        # A job is one SLURM task; inside it, runs are ordinary processes, and Lightning
        # must not take the task for one of its ranks. This name prevents that.
        os.environ["SLURM_JOB_NAME"] = "interactive"
        folder = folder_of(self.results, number)
        return run_sweep(self.sweep, results=folder, storage=self.storage, workers=self.workers)

    def checkpoint(self, number: int) -> "submitit.helpers.DelayedSubmission":
        """Called by submitit before a job's time is up: submit the same job, which continues."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, number)


def folder_of(results: Path, number: int) -> Path:
    """Where job ``number`` works."""
    return results / f"job-{number}"


def submit_sweep(
    path: Path,
    *,
    cluster: str,
    jobs: int,
    settings: Sequence[str] = (),
    results: Path | None = None,
    workers: int = 2,
    storage: str | None = None,
) -> int:
    """Start ``jobs`` jobs, wait for them, draw; see ``alignlab sweep --help``.

    Args:
        path: The sweep's YAML.
        cluster: ``slurm`` or ``local``.
        jobs: How many.
        settings: ``NAME=VALUE`` as submitit knows them, such as ``timeout_min=600``,
            ``gpus_per_node=1`` or ``slurm_partition=gpu``.
        results: Folder; default ``results/sweep-<name>``.
        workers: Processes of each job.
        storage: As in ``run_sweep``.

    Raises:
        ConfigError: A storage that jobs on other machines cannot share, an unknown setting, no
            SLURM here.
    """
    given = _settings(settings)
    sweep = load_sweep(path, results)
    folder = sweep.plan.results.resolve()
    url = _shared(storage or sweep.keys.storage, cluster, folder)
    with open_storage(url) as opened:  # before all jobs try to create the study and its trials
        study = open_study(sweep, opened)
        Slots(sweep, study, opened, str(folder)).enqueue_open(failed_too=True)
    work = Work(path.resolve(), folder, url, workers)
    defaults = {"timeout_min": DAY, "name": sweep.plan.name, "cpus_per_task": workers}
    started = start(work, cluster, jobs, defaults | given)
    statuses = [_wait(number, job) for number, job in enumerate(started)]
    _draw(sweep, folder, url)
    return max(statuses)


def start(
    work: Work, cluster: str, jobs: int, settings: Mapping[str, Any]
) -> "list[submitit.Job[int]]":
    """Submit the jobs, as one array if the cluster has arrays.

    Raises:
        ConfigError: submitit is not installed, or refuses the cluster or a setting.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise ConfigError("--submit needs submitit: pip install -e '.[slurm]'.") from None
    try:
        executor = submitit.AutoExecutor(work.results / LOGS, cluster=cluster)
        executor.update_parameters(**settings)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--submit {cluster}: {' '.join(str(error).split())}") from None
    started = executor.map_array(work, range(jobs))
    say(f"{jobs} jobs ({', '.join(job.job_id for job in started)}), logs: {work.results / LOGS}")
    return started


def _shared(url: str | None, cluster: str, folder: Path) -> str:
    """The URL of a storage that all jobs can reach; it may be written to submitit's files."""
    if cluster == "local" and url is None:
        make_folder(folder)
        url = f"sqlite:///{folder / STUDY}"
    if cluster != "local" and (url is None or url.startswith("sqlite")):
        raise ConfigError(
            f"--submit {cluster} needs a storage that several machines can write, and SQLite's "
            "locks do not hold across machines. Give --storage postgresql://USER@HOST/DATABASE, "
            "or journal:///FILE on a file system that they share."
        )
    assert url is not None
    if has_password(url):
        raise ConfigError(
            f"storage {shown(url)}: its password would be written to the jobs' files. Leave it "
            "out of the URL and give it in PGPASSWORD or ~/.pgpass."
        )
    return url


def _settings(words: Sequence[str]) -> dict[str, Any]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not (name and equals):
            raise ConfigError(f"--job {word}: expected NAME=VALUE, such as timeout_min=600.")
    return found


def _wait(number: int, job: "submitit.Job[int]") -> int:
    """A job's exit status; 1 if it died, which loses no results."""
    import submitit

    try:
        status: int = job.result()
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError) as error:
        last = str(error).strip().split("\n")[-1] or "died"
        say(f"error: job-{number}: {last} (log: {job.paths.stderr})")
        return 1
    say(f"job-{number}: done" if status == 0 else f"job-{number}: see {job.paths.stderr}")
    return status


def _draw(sweep: Sweep, folder: Path, url: str) -> None:
    """Tables, figures and report of all jobs' runs, those of earlier calls included."""
    with open_storage(url) as storage:
        study = open_study(sweep, storage)
        table.write_trials(folder / "trials.csv", sweep, study)
        say(table.summary(sweep, study))
    own = sorted(path.parent for path in folder.glob(f"job-*/{state.POINTS}"))
    if own and sweep.plan.frontier_needs:
        frontier_command(own, folder, **sweep.plan.frontier)
