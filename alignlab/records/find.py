"""Find a run by its folder, by its name in the tables, or by its label in a figure."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import read_record
from alignlab.plan import overlay
from alignlab.results.notes import Remarks, read_remarks
from alignlab.results.prompt_tables import (
    PromptScores,
    PromptTable,
    read_prompt_tables,
    read_scores,
)
from alignlab.results.run_folder import (
    STAGES,
    Evaluation,
    RunFolder,
    evaluations_in,
    job_folders,
    lone_name,
)
from alignlab.results.run_records import CONFIGS, results_folders, rows_by_run, table_of
from alignlab.results.tables import Point

PARENT = "parent"  # key of a config that ``alignlab fork`` wrote
HOW = (
    "Name a run's folder, RESULTS_DIR/RUN as points.csv has it, or a point of the report such as "
    "'dpo-beta0.9-s0, step 96'."
)


@dataclass(frozen=True, slots=True)
class Run:
    """A training run or another job of a stage, as far as its files are still there.

    Args:
        results: Its results folder; for a run of ``alignlab fit`` its own.
        run_id: Its name in the tables.
        step: The checkpoint that was asked for; ``None`` for the last.
    """

    results: Path
    run_id: str
    step: int | None = None

    @property
    def label(self) -> str:
        """How ``alignlab show`` takes it."""
        return str(self.results if self.is_lone else self.results / self.run_id)

    @property
    def is_lone(self) -> bool:
        """Whether it is a run of ``alignlab fit``."""
        return is_lone(self.results)

    @property
    def folder(self) -> Path | None:
        """Where its weights and logs are, if they were kept."""
        if self.is_lone:
            return self.results
        own = (job.path for job in job_folders(self.results) if job.run_id == self.run_id)
        return next(own, None)

    @property
    def config_file(self) -> Path | None:
        """Its resolved config."""
        folder = self.folder
        places = [self.results / CONFIGS / f"{self.run_id}.yaml"]
        places += [] if folder is None else [RunFolder(folder).config]
        return next((path for path in places if path.is_file()), None)

    @property
    def config(self) -> dict[str, Any]:
        """All settings; empty where no config was kept."""
        file = self.config_file
        return {} if file is None else overlay.read_yaml(file)

    @property
    def origin(self) -> dict[str, Any]:
        """Command and commit, as far as the run's folder records them."""
        folder = self.folder
        own = None if folder is None else RunFolder(folder)
        files = [] if own is None else [own.origin_file, own.started_file]
        return next(filter(None, map(read_record, files)), {})

    @property
    def seed(self) -> int:
        """Of its training."""
        points = self.points
        return points[0].seed if points else int(self.config.get("seed_everything") or 0)

    @property
    def commit(self) -> str:
        """The commit of its code; empty where none was recorded."""
        rows = [point.git_sha for point in self.points if point.git_sha]
        return rows[-1] if rows else str(self.origin.get("git_sha", ""))

    @property
    def remarks(self) -> Remarks:
        """Notes and tags."""
        return read_remarks(self.results).get(self.run_id, Remarks())

    @property
    def evaluations(self) -> list[Evaluation]:
        """Its evaluations whose files were kept."""
        return [] if self.folder is None else evaluations_in(self.folder)

    @property
    def points(self) -> list[Point]:
        """Its rows in ``points.csv``, or what they would be; in order of steps."""
        if own := rows_by_run(self.results).get(self.run_id):
            return sorted(own, key=lambda row: row.step)
        shared = {"hparams": {}, "git_sha": "", "seconds": 0.0, "experiment": ""}
        return [table.point(config_sha=self.config_sha, **shared) for table in self._evaluated()]

    @property
    def asked(self) -> Point | None:
        """Its row after ``step``, or the last one; ``None`` without an evaluation.

        Raises:
            ConfigError: It has no evaluation after that step.
        """
        points = self.points
        if self.step is None:
            return points[-1] if points else None
        own = next((point for point in points if point.step == self.step), None)
        if own is None:
            steps = ", ".join(str(point.step) for point in points) or "none"
            raise ConfigError(
                f"{self.label}: no evaluation after step {self.step}. Steps: {steps}."
            )
        return own

    @property
    def config_sha(self) -> str:
        """Hash of what it is made of; empty where nothing tells."""
        file, folder = self.config_file, self.folder
        done = None if folder is None else RunFolder(folder).done
        known = [row.config_sha for row in rows_by_run(self.results).get(self.run_id, [])]
        known += [str((done or {}).get("config_sha", ""))]
        title = "" if file is None else file.read_text(encoding="utf-8").partition("\n")[0]
        named = re.search("config_sha ([0-9a-f]+)", title)
        return next(filter(None, known), named[1] if named else "")

    @property
    def parent(self) -> dict[str, Any] | None:
        """The run that its config was forked from."""
        found = self.config.get(PARENT)
        return dict(found) if isinstance(found, Mapping) else None

    @property
    def inputs(self) -> list["Run"]:
        """Jobs into whose folders its config leads, in the order of the config."""
        jobs = [job_in(text) for text in texts_in(self.config)]
        own = Run(self.results, self.run_id)
        return list(dict.fromkeys(job for job in jobs if job and job != own))

    def scores(self, step: int) -> PromptScores | None:
        """Per-prompt results of a checkpoint, if they were kept."""
        path = table_of(self.results, self.run_id)
        tables = read_prompt_tables(path) if path.exists() else self._evaluated()
        own = (t.scores for t in tables if t.step == step and t.run_id == self.run_id)
        return next(own, None)

    def _evaluated(self) -> list[PromptTable]:
        seed = int(self.config.get("seed_everything") or 0)
        return [
            PromptTable(
                objective=objective_of(self.config),
                run_id=self.run_id,
                seed=seed,
                step=each.step,
                scores=read_scores(each.scores),
            )
            for each in self.evaluations
            if each.is_whole
        ]


def objective_of(config: dict[str, Any]) -> str:
    """Name of a run's objective by its class; empty for a call."""
    return str((config.get("model") or {}).get("class_path", "")).rpartition(".")[2].lower()


def job_in(text: str) -> Run | None:
    """The job into whose folder a path leads."""
    parts = Path(text).parts if "/" in text else ()
    if STAGES not in parts[:-2]:
        return None
    at = parts.index(STAGES)
    return Run(Path(*parts[:at]), RunFolder(Path(*parts[: at + 3])).run_id)


def texts_in(value: Any) -> Iterator[str]:
    """All texts of a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def is_lone(folder: Path) -> bool:
    """Whether ``folder`` is that of a run of ``alignlab fit``."""
    return (folder / RunFolder(folder).config.name).is_file()


def runs_in(results: Path) -> list[str]:
    """Names of all runs and other jobs that a results folder knows."""
    names = [*rows_by_run(results)]
    names += [file.stem for file in sorted((results / CONFIGS).glob("*.yaml"))]
    names += [job.run_id for job in job_folders(results) if job.started_file.exists()]
    return list(dict.fromkeys(names))


def find_run(text: str, roots: Sequence[Path]) -> Run:
    """The run that ``text`` names.

    Args:
        text: A folder, ``RESULTS_DIR/RUN``, or ``RUN`` alone; each may end in ``, step N``.
        roots: Where to look for a name alone.

    Raises:
        ConfigError: There is no such run, or the name is in several results folders.
    """
    named = re.fullmatch(r"(.+?)(?:, step (\d+))?", text)
    if named is None:
        raise ConfigError(f"{text!r}: expected the name of a run. {HOW}")
    step = None if named[2] is None else int(named[2])
    path = Path(named[1])
    run = _by_folder(path, step) if path.is_dir() else None
    if run is not None:
        return run
    folders = [path.parent] if len(path.parts) > 1 else results_folders(roots)
    holding = [folder for folder in folders if path.name in runs_in(folder)]
    if len(holding) > 1:
        listed = ", ".join(str(folder / path.name) for folder in holding)
        raise ConfigError(f"{text}: several results folders have such a run: {listed}. Name one.")
    if not holding:
        known = [name for folder in folders for name in runs_in(folder)]
        near = difflib.get_close_matches(path.name, known, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"{text}: no such run in {', '.join(map(str, folders))}.{hint} {HOW}")
    return Run(holding[0], path.name, step)


def _by_folder(path: Path, step: int | None) -> Run | None:
    job = RunFolder(path)
    if path.parent.parent.name == STAGES:
        return Run(path.parent.parent.parent, job.run_id, step)
    if is_lone(path):
        return Run(path, lone_name(path), step)
    if names := runs_in(path):
        raise ConfigError(
            f"{path}: it holds {len(names)} runs and other jobs. Name one, such as "
            f"{path / names[0]}."
        )
    return None


def runs_named(text: str, roots: Sequence[Path]) -> list[Run]:
    """The run that ``text`` names, or the runs of all seeds where it leaves out ``-s<seed>``.

    Raises:
        ConfigError: As ``find_run``.
    """
    path = Path(text)
    folders = [path.parent] if len(path.parts) > 1 else results_folders(roots)
    pattern = re.compile(rf"{re.escape(path.name)}-s\d+")
    arms = [[Run(f, name) for name in runs_in(f) if pattern.fullmatch(name)] for f in folders]
    arms = [arm for arm in arms if arm]
    return arms[0] if len(arms) == 1 else [find_run(text, roots)]
