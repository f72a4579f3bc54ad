"""What the pipeline's process and its workers tell each other, as JSON objects, one a line."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job

CHECK, FRONTIER = "check", "frontier"  # the pipeline's own jobs, beside those of the stages

ALIVE, BEAT = "alive", 2.0  # a worker's sign of life, and the seconds between two


class Reporter(Protocol):
    """The pipeline's process, as a job sees it."""

    def progress(self, step: int, total: int) -> None:
        """``step`` of ``total`` optimizer steps are done."""

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """An evaluation after ``step`` found this."""

    def why_stop(self, name: str) -> str | None:
        """Why job ``name`` should stop, if it should."""

    def say(self, line: str) -> None:
        """Something that the user should know."""


class Trained(NamedTuple):
    """What a finished training says of itself.

    Attributes:
        seconds: Of training, summed over continuations.
        metrics: What was logged last, name -> value.
        stopped: Why it ended before its last step, if it did.
    """

    seconds: float
    metrics: dict[str, float]
    stopped: str | None


def log_file(plan: Plan, name: str) -> Path:
    """Where the job's prints and traceback go."""
    return plan.results / "stages" / "logs" / f"{name}.log"


def message(plan: Plan, job: Job, commit: str, *, fresh: bool) -> dict[str, Any]:
    """The message that gives a job to a worker.

    Args:
        plan: Whose job it is.
        job: A stage's, or one of the pipeline's own.
        commit: Of the code, for the tables.
        fresh: Start over, whatever its folder holds.
    """
    common: dict[str, Any] = {"name": job.name, "log": str(log_file(plan, job.name))}
    if job.stage in (CHECK, FRONTIER):
        return common | {"spec": job.spec}
    run = None
    if job.objective is not None:
        run = {
            "experiment": plan.name,
            "objective": job.objective,
            "run_id": job.name,
            "seed": 0 if job.seed is None else job.seed,
            "hparams": job.hparams,
            "config_sha": job.config_sha,
            "git_sha": commit,
            "prompt_table": str(state.prompt_table(plan, job)),
        }
    return common | {
        "folder": str(plan.folder(job)),
        "config_sha": job.config_sha,
        "spec": plan.resolved(job),
        "fresh": fresh,
        "run": run,
    }
