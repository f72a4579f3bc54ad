"""From an experiment folder to all of its jobs.

``pipeline.yaml``, a scale (``scales/<name>.yaml``), ``scales/smoke.yaml`` and, if it is there,
``scales/<name>.smoke.yaml`` have the same keys. A later file wins.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.plan import overlay
from alignlab.plan.content import WRITTEN
from alignlab.plan.jobs import Job, Stage, expand, needed
from alignlab.plan.schema import PipelineKeys, check

SCALE, SMOKE = "[A-Za-z0-9][A-Za-z0-9_-]*", "smoke"


@dataclass(frozen=True)
class Plan:
    """All jobs of an experiment in an order in which each comes after what it needs.

    Args:
        name: The experiment's name with its scale, as in the tables.
        experiment: The experiment's folder.
        results: The folder that the jobs write to.
        seeds: Those asked for; ``jobs`` may hold more, where a stage needs a run of another seed
            by its name.
        jobs: Name -> job.
        frontier: Arguments of the closing evaluation.
        frontier_needs: Jobs that it reads besides the runs.
        stages: Name -> stage.
        inputs: The results folder in which needs lie, where that is not ``results`` itself: a
            sweep's runs read an experiment's stages.
        notes: What was given and is not used.
    """

    name: str
    experiment: Path
    results: Path
    seeds: tuple[int, ...]
    jobs: dict[str, Job]
    frontier: dict[str, Any]
    frontier_needs: tuple[str, ...]
    stages: dict[str, Stage]
    inputs: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> list[Job]:
        """The jobs of the seeds that were asked for."""
        return [job for job in self.jobs.values() if job.seed in (None, *self.seeds)]

    @property
    def runs(self) -> list[Job]:
        """Those of them that have rows in ``points.csv``."""
        return [job for job in self.asked if job.objective is not None]

    def folder(self, job: Job) -> Path:
        """The job's output folder."""
        return self.results / job.folder

    def resolved(self, job: Job) -> dict[str, Any]:
        """The job's spec with folders, seed and names filled in."""
        root = self.inputs or self.results

        def lookup(name: str) -> Any:
            if name in job.needs:
                folders = [str(root / self.jobs[need].folder) for need in job.needs[name]]
                return folders if len(folders) > 1 else folders[0]
            return {
                "seed": job.seed,
                "out": str(self.folder(job)),
                "experiment": str(self.experiment),
                "results": str(root),  # caches are shared, too
            }[name]

        filled: dict[str, Any] = overlay.fill(job.spec, lookup)
        return filled

    def to_check(self, job: Job) -> dict[str, Any]:
        """The job's spec, and whether its evaluations are to be points of the frontier."""
        return self.resolved(job) | {"evaluated": job.objective is not None}


def load_plan(
    experiment: Path,
    *,
    scale: str | None = None,
    smoke: bool = False,
    results: Path | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Read ``pipeline.yaml`` and its overlays and expand the stages into jobs.

    Raises:
        ConfigError: A missing or unreadable file, an unknown key or scale, a need that is not an
            earlier stage, a placeholder that stands for nothing.
    """
    layers = read_layers(experiment, scale, smoke)
    if seeds is not None:
        layers.append({"seeds": list(seeds)})
        check(PipelineKeys, layers[-1], "--seeds")
    asked, frontier = [0], dict[str, Any]()
    for layer in layers:
        asked = layer.get("seeds") or asked
        frontier = overlay.merge(frontier, layer.get("frontier") or {})
    stages = merged_stages(layers)
    others = _seeds_by_name(stages, asked)
    jobs: dict[str, Job] = {}
    for stage in stages:
        jobs |= {job.name: job for job in expand(stage, experiment, jobs, asked, others)}
    read = needed("frontier", frontier.get("needs") or [], jobs)
    # A smoke run has its own name and folder: it must never replace the rows of a real one.
    name = "-".join([experiment.resolve().name, *([scale] if scale else []), *[SMOKE] * smoke])
    folder = results or Path("results") / name
    for job in jobs.values():
        _check_literals(job, folder)
    return Plan(
        name=name,
        experiment=experiment,
        results=folder,
        seeds=tuple(asked),
        jobs=jobs,
        frontier=frontier.get("args") or {},
        frontier_needs=tuple(job.name for found in read.values() for job in found),
        stages={stage.name: stage for stage in stages},
        notes=tuple(_unused(stages, jobs, {key for layer in layers for key in layer})),
    )


def read_layers(experiment: Path, scale: str | None, smoke: bool) -> list[dict[str, Any]]:
    """The files of an experiment under ``scale``, each to be merged into those before it.

    Raises:
        ConfigError: No such file, or one that is refused.
    """
    if not (experiment / "pipeline.yaml").is_file():
        raise ConfigError(
            f"{experiment}: no pipeline.yaml there. Name an experiment folder, such as "
            "experiments/quickstart."
        )
    if scale is not None and not re.fullmatch(SCALE, scale):
        raise ConfigError(f"a scale is named by letters, digits, _ and -, got {scale!r}.")
    if scale == SMOKE:  # by its folder it would be taken for a smoke run of the experiment
        raise ConfigError("smoke is not a scale of its own: give --smoke, with a scale or without.")
    scales = experiment / "scales"
    names = [*([scale] if scale else []), *[SMOKE] * smoke]
    if smoke and (scales / f"{scale}.smoke.yaml").is_file():
        names.append(f"{scale}.smoke")  # what this scale alone needs to be small
    layers: list[dict[str, Any]] = []
    for path in [experiment / "pipeline.yaml", *(scales / f"{name}.yaml" for name in names)]:
        if not path.is_file():
            known = sorted(p.stem for p in scales.glob("*.yaml") if "." not in p.stem)
            raise ConfigError(
                f"{experiment} has no scale {path.stem!r}. Known: {', '.join(known) or 'none'}."
            )
        layers.append(_read(path, layers))
    return layers


def _read(path: Path, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layer = overlay.read_yaml(path)
    check(PipelineKeys, layer, str(path))
    stages = {name for earlier in before for name in earlier.get("stages") or {}}
    for name, entry in (layer.get("stages") or {}).items():
        if name not in stages and not {"fit", "call"} & set(entry or {}):
            raise ConfigError(
                f"{path}: stage {name!r} is new and has neither 'fit' nor 'call'. Add exactly one "
                f"of them, or name a stage to change: {', '.join(sorted(stages)) or 'none'}."
            )
    return layer


def merged_stages(layers: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages in order; a later layer adds, changes or drops (``name: null``) them.

    Raises:
        ConfigError: A stage that means nothing.
    """
    stages: dict[str, Stage] = {}
    listed = [layer.get("stages") or {} for layer in layers]
    for name in dict.fromkeys(name for entries in listed for name in entries):
        if any(name in entries and entries[name] is None for entries in listed):
            continue
        stage = Stage(name)
        for layer, entries in zip(layers, listed, strict=True):
            stage = stage.changed(entries.get(name) or {}, layer.get("set"))
        stage.check()
        stages[name] = stage
    return list(stages.values())


def _seeds_by_name(stages: Iterable[Stage], asked: Sequence[int]) -> list[int]:
    """Seeds of runs that are needed by name (``reward_model-s0``) without having been asked for."""
    needs = [need for stage in stages for need in stage.entry.get("needs") or []]
    named = {int(match[1]) for need in needs if (match := re.fullmatch(r".+-s(\d+)", need))}
    return sorted(named - set(asked))


def _unused(
    stages: Sequence[Stage], jobs: Mapping[str, Job], given: Iterable[str]
) -> Iterator[str]:
    """What no stage makes use of, in words."""
    entries = [stage.entry for stage in stages]
    uses = {
        "seeds": (any(e.get("per_seed") for e in entries), "no stage has 'per_seed: true'"),
        "set": (any("fit" in e for e in entries), "no stage is a training"),
        "frontier": (any(e.get("objective") for e in entries), "no stage has an 'objective'"),
    }
    for key, (used, why) in uses.items():
        if key in given and not used:
            yield f"{key!r} changes nothing: {why}"
    for stage in stages:
        own = [job for job in jobs.values() if job.stage == stage.name]
        if "call" in stage.entry and len({job.seed for job in own}) > 1:
            alike = {(str(job.hparams), str(job.spec), str(job.needs)) for job in own}
            if "{seed}" not in str(own[0].spec) and len(alike) < len(own):
                yield f"stage {stage.name!r} runs once for each seed, and uses none"


def _check_literals(job: Job, results: Path) -> None:
    """Refuse the path of a run's own results where a placeholder tells what is needed.

    Raises:
        ConfigError: There is one, so the run would change by having been made.
    """
    folder = os.path.abspath(results)
    for text in _texts(job.spec):
        literal = "/" in text and "{" not in text
        if literal and Path(os.path.abspath(text)).is_relative_to(folder):
            raise ConfigError(
                f"stage {job.stage!r}: {text} lies in this experiment's own results. Name the "
                "stage that makes it in 'needs' and write {stage} for its folder, so that it is "
                "made before."
            )


def _texts(value: Any) -> Iterator[str]:
    """The strings of a config but for the folders that a run writes to."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in WRITTEN:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
