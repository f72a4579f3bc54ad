"""From an experiment folder to a list of jobs, each with the hash of everything it depends on.

``pipeline.yaml`` lists the stages; a scale (``scales/<name>.yaml``), ``scales/smoke.yaml`` and, if
it is there, ``scales/<name>.smoke.yaml`` are overlays of the same shape. A stage is a training
(``fit: stage.yaml``) or a call of a function (``call: package.module.function``), and expands into
one job per seed and grid point.
"""

import inspect
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import sha_of
from alignlab.plan import overlay
from alignlab.plan.content import WRITTEN, by_content
from alignlab.plan.keys import (
    ANY,
    FILES,
    FUNCTION,
    GRID,
    MAPPING,
    MOST_RUNS,
    SEEDS,
    SWITCH,
    TEXT,
    TEXTS,
    check_count,
    checked,
)
from alignlab.report.command import frontier_command

STAGE_KEYS = {
    "fit": FILES,
    "call": FUNCTION,
    "args": MAPPING,
    "set": MAPPING,
    "needs": TEXTS,
    "per_seed": SWITCH,
    "grid": GRID,
    "objective": TEXT,
}
PLAN_KEYS = {"seeds": SEEDS, "set": MAPPING, "stages": MAPPING, "frontier": MAPPING}
FRONTIER_KEYS = {"needs": TEXTS, "args": MAPPING}
PROBE = "alignlab.callbacks.probe.FrontierProbe"
SCALE, SMOKE = "[A-Za-z0-9][A-Za-z0-9_-]*", "smoke"
LONGEST_NAME = 200  # characters of a run's name; file systems take 255 for a file's
FIXED_NAMES = ("seed", "out", "experiment", "results")
TAKEN = (*FIXED_NAMES, "frontier", "check", "workers", "logs")
ROWS = ("best_of_n", "best_of_n_gt", "oracle", "reference")  # of the frontier, of no run


@dataclass(frozen=True)
class Job:
    """One training run or one call.

    Args:
        stage: The stage's name in ``pipeline.yaml``.
        key: Grid point and seed, such as ``beta0.5-s1``; ``all`` where there is neither.
        seed: The run's seed; ``None`` for a stage that is the same for every seed.
        hparams: The grid point, short name -> value.
        objective: The name in the tables of a frontier run; ``None`` for other stages.
        spec: ``{"config": ...}`` of a run or ``{"call": ..., "args": ...}``, with placeholders
            still in place.
        needs: Stage or run, as in ``pipeline.yaml`` -> names of the jobs whose output is read.
        listed: Those needs whose placeholder stands for a list of folders.
        config_sha: Hash of spec, seed, data files and upstream hashes.
    """

    stage: str
    key: str
    seed: int | None
    hparams: dict[str, Any]
    objective: str | None
    spec: dict[str, Any]
    needs: dict[str, tuple[str, ...]]
    listed: frozenset[str]
    config_sha: str

    @property
    def name(self) -> str:
        """``dpo-beta0.5-s1``: the ``run_id`` in the tables."""
        return self.stage if self.key == "all" else f"{self.stage}-{self.key}"

    @property
    def folder(self) -> str:
        """Where its output lies, below the results folder."""
        return f"stages/{self.stage}/{self.key}"


@dataclass
class Stage:
    """A stage as the layers give it: its merged entry, and its ``set`` of each layer in order."""

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """All jobs of an experiment in an order in which each comes after what it needs.

    ``name`` is the experiment's name with its scale, as in the tables. ``seeds`` are those asked
    for; ``jobs`` may hold more, where a stage needs a run of another seed by its name.
    ``frontier`` holds the arguments of the closing evaluation, ``frontier_needs`` the jobs that it
    reads besides the runs. ``inputs`` is the results folder in which needs lie, where that is not
    ``results`` itself: a sweep's runs read an experiment's stages. ``notes`` say what was given
    and is not used.
    """

    name: str
    experiment: Path
    results: Path
    seeds: tuple[int, ...]
    jobs: dict[str, Job]
    frontier: dict[str, Any]
    frontier_needs: tuple[str, ...]
    stages: dict[str, Stage] = field(default_factory=dict)
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
                return folders if name in job.listed else folders[0]
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
    layers = _layers(experiment, scale, smoke)
    asked = _seeds(layers)
    if seeds is not None:
        asked = checked({"seeds": list(seeds)}, {"seeds": SEEDS}, "--seeds")["seeds"]
    stages = _stages(layers)
    frontier: dict[str, Any] = {}
    for layer in layers:
        frontier = overlay.merge(frontier, layer.get("frontier") or {})
    where = f"{experiment}/pipeline.yaml: frontier"
    checked(frontier, FRONTIER_KEYS, where)
    check_frontier(frontier.get("args") or {}, f"{where}.args")
    jobs: dict[str, Job] = {}
    others = _seeds_by_name(stages, asked)
    for stage in stages:
        for job in expand(stage, experiment, asked, others, jobs):
            jobs[job.name] = job
    read = _needed("frontier", frontier.get("needs") or [], jobs)
    # A smoke run has its own name and folder: it must never replace the rows of a real one.
    name = "-".join([experiment.resolve().name, *([scale] if scale else []), *[SMOKE] * smoke])
    folder = results or Path("results") / name
    for job in jobs.values():
        _check_literals(job.stage, job.spec, folder)
    given = [*(key for layer in layers for key in layer), *["seeds"] * (seeds is not None)]
    return Plan(
        name=name,
        experiment=experiment,
        results=folder,
        seeds=tuple(asked),
        jobs=jobs,
        frontier=frontier.get("args") or {},
        frontier_needs=tuple(job.name for found in read.values() for job in found),
        stages={stage.name: stage for stage in stages},
        notes=tuple(_unused(stages, jobs, given)),
    )


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
            seeded = "{seed}" in str(own[0].spec) or len(alike) == len(own)
            if not seeded:
                yield f"stage {stage.name!r} runs once for each seed, and uses none"


def _check_literals(stage: str, value: Any, results: Path) -> None:
    """Refuse the path of a run's own results where a placeholder tells what is needed.

    Raises:
        ConfigError: There is one, so the run would change by having been made.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in WRITTEN:
                _check_literals(stage, item, results)
    elif isinstance(value, list):
        for item in value:
            _check_literals(stage, item, results)
    elif isinstance(value, str) and "/" in value and "{" not in value and _lies_in(value, results):
        raise ConfigError(
            f"stage {stage!r}: {value} lies in this experiment's own results. Name the stage that "
            "makes it in 'needs' and write {stage} for its folder, so that it is made before."
        )


def _lies_in(path: str, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _layers(experiment: Path, scale: str | None, smoke: bool) -> list[dict[str, Any]]:
    if not (experiment / "pipeline.yaml").is_file():
        raise ConfigError(
            f"{experiment}: no pipeline.yaml there. Name an experiment folder, such as "
            "experiments/quickstart."
        )
    if scale is not None and not re.fullmatch(SCALE, scale):
        raise ConfigError(f"a scale is named by letters, digits, _ and -, got {scale!r}.")
    if scale == SMOKE:  # by its folder it would be taken for a smoke run of the experiment
        raise ConfigError("smoke is no scale of its own: give --smoke, with a scale or without.")
    paths = [experiment / "pipeline.yaml"]
    scales = experiment / "scales"
    names = [*([scale] if scale else []), *[SMOKE] * smoke]
    if smoke and (scales / f"{scale}.smoke.yaml").is_file():
        names.append(f"{scale}.smoke")  # what this scale alone needs to be small
    for name in names:
        path = scales / f"{name}.yaml"
        if not path.is_file():
            known = sorted(p.stem for p in scales.glob("*.yaml") if "." not in p.stem)
            raise ConfigError(
                f"{experiment} has no scale {name!r}. Known: {', '.join(known) or 'none'}."
            )
        paths.append(path)
    layers: list[dict[str, Any]] = []
    stages: set[str] = set()
    for path in paths:
        layer = checked(overlay.read_yaml(path), PLAN_KEYS, str(path))
        for name, entry in (layer.get("stages") or {}).items():
            checked({} if entry is None else entry, STAGE_KEYS, f"{path}: stage {name!r}")
            new = entry and (layers == [] or {"fit", "call"} & set(entry))
            if name not in stages and not new:
                raise ConfigError(
                    f"{path}: stage {name!r}: there is none to change. Stages before it: "
                    f"{', '.join(sorted(stages)) or 'none'}. A new one needs 'fit' or 'call'."
                )
        stages.update(layer.get("stages") or {})
        layers.append(layer)
    return layers


def check_frontier(args: Mapping[str, Any], where: str) -> None:
    """Refuse settings that the final evaluation does not take, before the runs that it evaluates.

    Raises:
        ConfigError: An unknown setting.
    """
    taken = inspect.signature(frontier_command).parameters.values()
    settings = [parameter for parameter in taken if parameter.kind is parameter.KEYWORD_ONLY]
    checked(args, {p.name: TEXT if p.annotation is str else ANY for p in settings}, where)


def _seeds(layers: Iterable[Mapping[str, Any]]) -> list[int]:
    seeds = [0]
    for layer in layers:
        seeds = layer.get("seeds") or seeds
    return seeds


def _seeds_by_name(stages: Iterable[Stage], asked: Sequence[int]) -> list[int]:
    """Seeds of runs that are needed by name (``reward_model-s0``) without having been asked for."""
    needs = [need for stage in stages for need in stage.entry.get("needs") or []]
    named = {int(match[1]) for need in needs if (match := re.fullmatch(r".+-s(\d+)", need))}
    return sorted(named - set(asked))


def _stages(layers: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages in order; a later layer adds, changes or drops (``name: null``) them."""
    stages: list[Stage] = []
    listed = [layer.get("stages") or {} for layer in layers]
    for name in dict.fromkeys(name for entries in listed for name in entries):
        stage = Stage(name)
        for layer, entries in zip(layers, listed, strict=True):
            entry = dict(entries.get(name) or {})
            own = entry.pop("set", None) or {}
            stage.settings += [layer.get("set") or {}, own]
            stage.entry = overlay.merge(_kept(stage.entry, entry), entry)
            if own and "call" in stage.entry:
                where = f"stage {name!r}"
                raise ConfigError(
                    f"{where}: 'set' is for a stage that trains; a call takes 'args'."
                )
        if any(name in entries and entries[name] is None for entries in listed):
            continue
        check_stage(stage)
        stages.append(stage)
    return stages


def _kept(entry: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a stage when ``over`` makes it train, or call another function."""
    gone: set[str] = set()
    if "fit" in over:
        gone = {"call", "args"}
    elif "call" in over and over["call"] != entry.get("call"):
        gone = {"fit", "args"}
    return {key: value for key, value in entry.items() if key not in gone}


def check_stage(stage: Stage) -> None:
    """Refuse a name that cannot be a folder, and a stage without one of ``fit`` and ``call``.

    Raises:
        ConfigError: A wrong name, or not exactly one of the two.
    """
    where = f"stage {stage.name!r}"
    if not re.fullmatch("[a-z][a-z0-9_]*", stage.name) or stage.name in TAKEN:
        raise ConfigError(
            f"{where}: a stage's name is lower-case letters, digits and _, and none of "
            f"{', '.join(TAKEN)}."
        )
    if ("fit" in stage.entry) == ("call" in stage.entry):
        raise ConfigError(f"{where} needs exactly one of 'fit: stage.yaml' and 'call: a.function'.")
    if stage.entry.get("objective") in ROWS:
        raise ConfigError(
            f"{where}: objective {stage.entry['objective']!r} is a row of its own in the frontier. "
            f"Name it otherwise than {', '.join(ROWS)}."
        )
    if "fit" in stage.entry and "args" in stage.entry:
        raise ConfigError(f"{where}: 'args' belong to a call; a training takes 'set'.")


def _needed(stage: str, needs: Sequence[str], jobs: Mapping[str, Job]) -> dict[str, list[Job]]:
    """The jobs that each need stands for: all of an earlier stage, or a single one by its name."""
    found = {}
    for need in needs:
        found[need] = [job for job in jobs.values() if need in (job.stage, job.name)]
        if not found[need]:
            earlier = dict.fromkeys(job.stage for job in jobs.values())
            raise ConfigError(
                f"stage {stage!r} needs {need!r}, which is no stage before it, nor a run of one. "
                f"Stages before it: {', '.join(earlier) or 'none'}."
            )
    return found


def expand(
    stage: Stage,
    experiment: Path,
    asked: Sequence[int],
    others: Sequence[int],
    jobs: Mapping[str, Job],
) -> list[Job]:
    """The stage's jobs, one for each grid point and seed.

    Args:
        stage: To expand.
        experiment: The experiment's folder, in which stage files are looked for.
        asked: Seeds of a stage that runs once for each.
        others: Further seeds that single runs are needed of.
        jobs: Those of the stages before it.

    Raises:
        ConfigError: A file that cannot be read, a need that is no stage before it, a grid or a
            placeholder that means nothing.
    """
    entry = stage.entry
    per_seed = bool(entry.get("per_seed", False))
    spec = _spec(stage, experiment)
    upstream = _needed(stage.name, entry.get("needs") or [], jobs)
    expanded = []
    points = _grid(stage.name, entry.get("grid") or {})
    seeds = [*asked, *others] if per_seed else [None]
    check_count(len(points) * len(seeds), MOST_RUNS, f"stage {stage.name!r}: runs")
    check_names(stage.name, points, f"stage {stage.name!r}")
    for point in points:
        for seed in seeds:
            here = _with_point(spec, point, seed)
            own = (None, *asked) if seed is None else (None, seed)
            needs = {
                name: [job for job in found if job.name == name or job.seed in own]
                for name, found in upstream.items()
            }
            short = _short_names(point)
            parts = _name_parts(stage.name, point) + ([] if seed is None else [f"s{seed}"])
            listed = frozenset(name for name, found in needs.items() if len(found) > 1)
            _check_placeholders(stage.name, here, needs, seed)
            expanded.append(
                Job(
                    stage=stage.name,
                    key="-".join(parts) or "all",
                    seed=seed,
                    hparams={short[key]: value for key, value in point.items()},
                    objective=entry.get("objective"),
                    spec=here,
                    needs={name: tuple(job.name for job in found) for name, found in needs.items()},
                    listed=listed,
                    config_sha=_config_sha(here, seed, needs, experiment),
                )
            )
    return expanded


def _spec(stage: Stage, experiment: Path) -> dict[str, Any]:
    if "call" in stage.entry:
        return {"call": stage.entry["call"], "args": stage.entry.get("args") or {}}
    files = stage.entry["fit"]
    config: dict[str, Any] = {}
    for name in [files] if isinstance(files, str) else files:
        config = overlay.merge(config, overlay.read_yaml(experiment / name))
    for settings in stage.settings:
        for dotted, value in settings.items():
            overlay.set_dotted(config, dotted, value)
    return {"config": config}


def _grid(stage: str, grid: Any) -> list[dict[str, Any]]:
    """A mapping of lists is a product; a list of mappings is taken point by point."""
    if isinstance(grid, list):
        return grid
    axes = {key: values for key, values in grid.items() if values is not None}
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"stage {stage!r}: grid.{key} must be a list, got {values!r}.")
    check_count(math.prod(map(len, axes.values())), MOST_RUNS, f"stage {stage!r}: grid points")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def _with_point(spec: dict[str, Any], point: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    here = overlay.merge(spec, {})
    root = "config" if "config" in here else "args"
    here[root] = overlay.merge({}, here[root])
    for dotted, value in point.items():
        overlay.set_dotted(here, f"{root}.{dotted}", value)
    if root == "config":
        # One stated seed per training: the run's own, or the file's, or 0.
        here[root].setdefault("seed_everything", 0)
        if seed is not None:
            here[root]["seed_everything"] = seed
    return here


def check_names(stage: str, points: Iterable[Mapping[str, Any]], where: str) -> None:
    """Refuse points whose runs would share a name and so a folder, or could not have one.

    Raises:
        ConfigError: Two points share a run name, or a name is too long.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for point in points:
        name = "-".join([stage, *_name_parts(stage, point)])
        if len(name) > LONGEST_NAME:
            raise ConfigError(
                f"{where}: run {name[:40]}... would have a name of {len(name)} characters, more "
                f"than the {LONGEST_NAME} that fit. Use shorter values."
            )
        if name in found:
            raise ConfigError(
                f"{where}: {found[name]} and {dict(point)} would both be run {name!r}. Leave one "
                "out, or let them differ in more than signs that a file's name cannot hold."
            )
        found[name] = dict(point)


def _name_parts(stage: str, point: Mapping[str, Any]) -> list[str]:
    short = _short_names(point)
    return [f"{short[key]}{_label(stage, value)}" for key, value in point.items()]


def _short_names(point: Mapping[str, Any]) -> dict[str, str]:
    last = {key: key.rsplit(".", 1)[-1] for key in point}
    unique = len(set(last.values())) == len(last)
    return last if unique else {key: key.replace(".", "_") for key in point}


def _label(stage: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, (int, str)):
        return re.sub(r"[^A-Za-z0-9._-]+", "_", str(value))
    raise ConfigError(f"stage {stage!r}: a grid value is a number, a word or a switch: {value!r}.")


def _check_placeholders(
    stage: str, spec: Any, needs: Mapping[str, Sequence[Job]], seed: int | None
) -> None:
    def known(name: str) -> str | list[str]:
        if name == "seed" and seed is None:
            raise ConfigError(f"stage {stage!r} uses {{seed}}: give it 'per_seed: true'.")
        if name in needs:
            return ["", ""] if len(needs[name]) > 1 else ""
        if name not in FIXED_NAMES:
            raise ConfigError(
                f"stage {stage!r} uses {{{name}}}, which stands for nothing. Add {name!r} to its "
                f"needs, or use one of {', '.join((*needs, *FIXED_NAMES))}."
            )
        return ""

    overlay.fill(spec, known)


def _with_callback(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with its ``probe`` as the first callback: both ways to write it have one hash."""
    probe, trainer = config.get("probe"), config.get("trainer") or {}
    if probe is not None:
        callbacks = trainer.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        probe = probe if "class_path" in probe else {"class_path": PROBE, "init_args": probe}
        config = {**config, "trainer": {**trainer, "callbacks": [probe, *callbacks]}}
    return {key: value for key, value in config.items() if key != "probe"}


def _config_sha(
    spec: Mapping[str, Any],
    seed: int | None,
    needs: Mapping[str, Sequence[Job]],
    experiment: Path,
) -> str:
    if "config" in spec:
        spec = {"config": _with_callback(spec["config"])}
    return sha_of(
        {
            "spec": by_content(spec, experiment),
            "seed": seed,
            "upstream": {name: [job.config_sha for job in found] for name, found in needs.items()},
        }
    )
