"""``catalogue.html``: all results folders on one page, with their arms and runs, to be filtered."""

import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.evaluation.effects import last_points
from alignlab.files import atomic_write
from alignlab.pages import rendered
from alignlab.report.sections import Section
from alignlab.results.commits import short
from alignlab.results.notes import Remarks, read_remarks
from alignlab.results.run_records import rows_by_run
from alignlab.results.tables import FrontierRow, Point, read_frontier

FRONTIER, REPORT = "frontier.csv", "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A results folder.

    Args:
        name: The folder, as seen from the page.
        link: Its report from there; ``None`` without one.
        points: Its runs after their last step, objective by objective.
        checkpoints: Rows of its ``points.csv``.
        frontier: Its frontier's rows.
        remarks: Run -> notes and tags.
    """

    name: str
    link: str | None
    points: dict[str, list[Point]]
    checkpoints: int
    frontier: Sequence[FrontierRow]
    remarks: dict[str, Remarks]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """Runs of one objective with the same settings, a seed each."""

    entry: Entry
    runs: Sequence[Point]

    @property
    def tags(self) -> str:
        """Tags of its runs, each once."""
        found = (self.entry.remarks.get(run.run_id, Remarks()).tags for run in self.runs)
        return ", ".join(dict.fromkeys(f"#{tag}" for tags in found for tag in tags)) or "-"


def write_catalogue(path: Path, folders: Iterable[Path]) -> int:
    """Write the page; returns how many results folders are on it.

    Equal tables and notes give an equal page.

    Raises:
        DataError: A table cannot be read.
    """
    entries = [_entry(folder, path.parent) for folder in folders]
    text = rendered("report/catalogue.html", entries=entries, sections=sections(entries))
    atomic_write(path, text.encode())
    return len(entries)


def _entry(folder: Path, start: Path) -> Entry:
    rows = [row for own in rows_by_run(folder).values() for row in own]
    frontier, report = folder / FRONTIER, folder / REPORT
    return Entry(
        name=os.path.relpath(folder, start),
        link=os.path.relpath(report, start) if report.exists() else None,
        points=last_points(rows),
        checkpoints=len(rows),
        frontier=read_frontier(frontier) if frontier.exists() else [],
        remarks=read_remarks(folder),
    )


def sections(entries: Sequence[Entry]) -> list[Section]:
    """The tables: experiments by objective, arms, and runs."""
    objectives = [(entry, name) for entry in entries for name in (entry.points or [""])]
    arms = [arm for entry in entries for arm in _arms(entry)]
    runs = [(arm.entry, run) for arm in arms for run in arm.runs]
    return [
        Section(
            "Experiments",
            "An objective of a results folder. Share: the largest share of the optimum's gain over "
            "the KL budgets, with its 95 % interval; the largest of several is biased upwards.",
            objectives,
            {
                "folder": lambda row: row[0].name,
                "experiment": lambda row: _first(row).experiment if row[1] else "no points.csv",
                "objective": lambda row: row[1] or "-",
                "runs": lambda row: len(row[0].points.get(row[1], [])),
                "seeds": lambda row: _seeds(row[0].points.get(row[1], [])),
                "share at KL": lambda row: _best_share(row[0].frontier, row[1]),
                "reward at KL": lambda row: _largest_reward(row[0].points.get(row[1], [])),
            },
        ),
        Section(
            "Arms",
            "Runs of one objective with the same settings, after their last step: mean and "
            "standard deviation over seeds.",
            arms,
            {
                "folder": lambda arm: arm.entry.name,
                "objective": lambda arm: arm.runs[0].objective,
                "settings": lambda arm: _settings(arm.runs[0]),
                "seeds": lambda arm: _seeds(arm.runs),
                "KL": lambda arm: _over_seeds([run.kl for run in arm.runs]),
                "reward": lambda arm: _over_seeds([run.reward for run in arm.runs]),
                "tags": lambda arm: arm.tags,
            },
        ),
        Section(
            "Runs",
            "After the last step, with 95 % intervals that count prompts only. "
            "alignlab show FOLDER/RUN has the rest.",
            runs,
            {
                "folder": lambda row: row[0].name,
                "run": lambda row: row[1].run_id,
                "seed": lambda row: row[1].seed,
                "step": lambda row: row[1].step,
                "KL": lambda row: f"{row[1].kl:.3g} ± {1.96 * row[1].kl_se:.2g}",
                "reward": lambda row: f"{row[1].reward:.3g} ± {1.96 * row[1].reward_se:.2g}",
                "commit": lambda row: short(row[1].git_sha) or "-",
                "notes": lambda row: str(row[0].remarks.get(row[1].run_id, "")) or "-",
            },
        ),
    ]


def _first(row: tuple[Entry, str]) -> Point:
    return row[0].points[row[1]][0]


def _arms(entry: Entry) -> list[Arm]:
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for own in entry.points.values():
        for run in sorted(own, key=lambda point: (point.run_id, point.seed)):
            groups[run.objective, _settings(run)].append(run)
    return [Arm(entry=entry, runs=runs) for runs in groups.values()]


def _settings(run: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in run.hparams.items()) or "-"


def _seeds(runs: Sequence[Point]) -> str:
    return ", ".join(map(str, sorted({run.seed for run in runs}))) or "-"


def _over_seeds(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3g}{spread}"


def _best_share(rows: Iterable[FrontierRow], objective: str) -> str:
    own = [
        (row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi, row.kl_budget)
        for row in rows
        if row.objective == objective and row.oracle_efficiency is not None
    ]
    if not own:
        return "-"
    share, low, high, budget = max(own)
    return f"{share:.3f} [{low:.3f}, {high:.3f}] at {budget:g}"


def _largest_reward(runs: Sequence[Point]) -> str:
    if not runs:
        return "-"
    best = max(runs, key=lambda run: run.reward)
    return f"{best.reward:.3g} at {best.kl:.3g}"
