"""The layout of a run's folder: only this module knows the names of its files.

A job of a pipeline has the folder ``stages/<stage>/<key>`` of the results folder, with the model,
``config.yaml`` and, written last, ``done.json`` in it. Its logs are below ``train/``, and among
them ``points/step-<n>.*``, an evaluation's files; a run of ``alignlab fit`` has logs alone.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import DataError
from alignlab.files import (
    DONE,
    STARTED,
    TRAIN,
    atomic_write,
    belongs,
    read_record,
    stamp,
    write_record,
)

STAGES, ALL = "stages", "all"  # folder of all jobs; key of a stage's only job
CONFIG = "config.yaml"
MODEL = "model"  # folder of the trained model in that of a run of ``alignlab fit``
ORIGIN = "run.json"  # beside it: the commands that made the run, and the commit of their code


@dataclass(frozen=True, slots=True)
class SampleText:
    """One evaluated completion, for tables of samples."""

    prompt_id: str
    prompt: str
    completion: str
    reward: float
    proxy_reward: float | None
    kl: float
    length: int


class RunFolder:
    """The folder of a job.

    Args:
        path: Ends in ``<stage>/<key>``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.stage, self.key = self.path.parent.name, self.path.name
        self.logs, self.config = self.path / TRAIN, self.path / CONFIG
        self.done_file, self.started_file = self.path / DONE, self.path / STARTED
        self.origin_file = self.path / ORIGIN

    @property
    def run_id(self) -> str:
        """Name of the job, and of its run in ``points.csv``."""
        return job_name(self.stage, self.key)

    @property
    def long_name(self) -> str:
        """Stage and key, even if the key is ``all``."""
        return f"{self.stage}-{self.key}"

    @property
    def done(self) -> dict[str, Any] | None:
        """The record of a finished job; ``None`` where it is missing or damaged."""
        return read_record(self.done_file)

    @property
    def evaluations(self) -> "list[Evaluation]":
        """Evaluations of the run, wherever its logger put them."""
        return evaluations_in(self.path)


def job_name(stage: str, key: str) -> str:
    """The name of a stage's job."""
    return stage if key == ALL else f"{stage}-{key}"


def lone_name(folder: Path) -> str:
    """The name of a run of ``alignlab fit``: runs are numbered in every folder."""
    whole = folder.resolve()
    return f"{whole.parents[1].name}-{whole.name}"


def job_folders(results: Path) -> list[RunFolder]:
    """The folders of all jobs of a results folder."""
    return [RunFolder(path) for path in sorted(results.glob(f"{STAGES}/*/*"))]


class Evaluation:
    """The files of one evaluation, which only the probe writes.

    Args:
        logs: Folder of the run's logs.
        step: Optimizer steps done.

    Attributes:
        scores: ``.parquet``, the per-prompt scores.
        texts: ``.texts.jsonl``, completions to read.
        record: ``.json``, training time and what the other two are. It is written last: where it
            is whole, the evaluation is complete.
    """

    def __init__(self, logs: Path, step: int) -> None:
        self.step = step
        self.scores = logs / "points" / f"step-{step:06d}.parquet"
        self.texts = self.scores.with_suffix(".texts.jsonl")
        self.record = self.scores.with_suffix(".json")

    @property
    def seconds(self) -> float:
        """Training time until then; 0 where no record tells."""
        return float((read_record(self.record) or {}).get("seconds", 0.0))

    @property
    def is_whole(self) -> bool:
        """Whether all its files exist and are as they were written."""
        return self.record.exists() and all(
            belongs(self.record, path.name) for path in (self.scores, self.texts)
        )

    def seal(self, seconds: float) -> None:
        """Write the record of an evaluation whose other files are written."""
        stamps = {path.name: stamp(path) for path in (self.scores, self.texts)}
        write_record(self.record, {"seconds": seconds, "files": stamps})

    def remove(self) -> None:
        """Delete its files."""
        for path in (self.record, self.scores, self.texts):
            path.unlink(missing_ok=True)

    def write_texts(self, texts: Iterable[SampleText]) -> None:
        """Write ``texts``, a JSON object a line."""
        lines = [json.dumps(asdict(text), ensure_ascii=False) for text in texts]
        atomic_write(self.texts, "".join(f"{line}\n" for line in lines).encode())

    def read_texts(self) -> list[SampleText]:
        """What ``write_texts`` wrote.

        Raises:
            DataError: It is not.
        """
        if not belongs(self.record, self.texts.name):
            raise DataError(f"{self.texts} is damaged.")
        lines = self.texts.read_text(encoding="utf-8").split("\n")
        return [SampleText(**json.loads(line)) for line in lines if line]


def evaluations_in(folder: Path) -> list[Evaluation]:
    """Evaluations at or below ``folder`` of which any file is there, in order of steps."""
    found = {
        (int(path.name.removeprefix("step-").partition(".")[0]), path.parent.parent)
        for path in folder.rglob("points/step-*")
    }
    return [Evaluation(logs, step) for step, logs in sorted(found)]
