"""What the pipeline's process and its workers tell each other, as JSON objects, one a line."""

import json
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job
from alignlab.results.run_folder import STAGES

CHECK, FRONTIER = "check", "frontier"  # the pipeline's own jobs, beside those of the stages

ALIVE, BEAT = "alive", 2.0  # a worker's sign of life, and the seconds between two
REPORT_EVERY = 0.5  # seconds between two reports of progress


class Reporter:
    """Through which a job reports to the pipeline's process.

    Args:
        out: Where messages go. A further rank of a run has one that leads nowhere: its worker
            reports, and asks whether to stop, for all ranks.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = 0.0
        self._stops: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send one message now."""
        with self._one_at_a_time:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()

    def progress(self, step: int, total: int) -> None:
        """``step`` of ``total`` (0: unknown) steps are done; most of many calls are dropped."""
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY or step == total:
            self._last = now
            self.send(event="progress", step=step, total=total)

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """An evaluation after ``step`` found ``metrics``; the answer may be that the job stops."""
        self.send(event="evaluated", step=step, metrics=metrics)

    def say(self, line: str) -> None:
        """Have the pipeline's process show a line."""
        self.send(event="said", line=line)

    def stop(self, name: str, why: str) -> None:
        """The pipeline's process wants job ``name`` to stop."""
        self._stops[name] = why

    def why_stop(self, name: str) -> str | None:
        """Why job ``name`` should stop, if it should."""
        return self._stops.get(name)


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
    return plan.results / STAGES / "logs" / f"{name}.log"


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
