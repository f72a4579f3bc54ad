"""The runs in a sweep's results folder: which are up to date, and what they came to.

A run is up to date when its rows are in the tables, with or without its weights, so what it
logged is kept beside its per-prompt table.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.files import DONE, read_record
from alignlab.pipeline import records
from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.plan.jobs import Job
from alignlab.results.run_records import record_of, rows_by_run
from alignlab.results.tables import Point
from alignlab.sweep.spec import PROBED


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        measures: Name -> value: of its last evaluation (``PROBED``), and whatever it logged.
        stopped: Why it ended before its last step; empty if it did not.
    """

    measures: dict[str, float]
    stopped: str


class Outcomes:
    """The finished runs of a results folder; ``rows``, by run, are read when they change."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.rows = rows_by_run(plan.results)

    def record(self, job: Job) -> None:
        """Put what a finished run left into the tables."""
        records.record(self._plan, job)
        self.rows = rows_by_run(self._plan.results)

    def has(self, job: Job, metrics: Iterable[str]) -> bool:
        """Whether a run need not be made: its rows stand, with ``metrics``, or can be recorded."""
        done = state.is_done(self._plan, job)
        if not state.is_up_to_date(self._plan, job, self.rows, done=done):
            return False
        if done and not state.is_recorded(self._plan, job, self.rows):
            self.record(job)  # the parent was killed just before
        return done or {*metrics} <= self.of(job).measures.keys()

    def of(self, job: Job) -> Outcome:
        """From ``done.json``; where that is gone, from what stands beside the tables."""
        done = read_record(self._plan.folder(job) / DONE)
        if done is not None and done["config_sha"] == job.config_sha:
            rows = [Point(**row) for row in done["points"]]
        else:
            done = read_record(record_of(self._plan.results, job.name))
            rows = self.rows.get(job.name, [])
        if done is None or done["config_sha"] != job.config_sha:
            done = {}
        measures = dict(done.get("metrics") or {})
        if rows:
            last = max(rows, key=lambda row: row.step)
            values = {f.name: getattr(last, f.name) for f in fields(Point) if f.name in PROBED}
            measures |= {name: float(value) for name, value in values.items() if value is not None}
        return Outcome(measures, done.get("stopped") or "")


def check_metrics(where: Path, metrics: Iterable[str]) -> None:
    """Refuse a metric that no run can have; whether one is logged shows after the first run.

    Raises:
        ConfigError: A name without a slash that no evaluation measures.
    """
    for name in metrics:
        if "/" not in name and name not in PROBED:
            near = difflib.get_close_matches(name, PROBED, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{where}: metric {name!r} is not measured by any run. An evaluation has "
                f"{', '.join(PROBED)}; what is logged has a slash, as val/loss does.{hint}"
            )
