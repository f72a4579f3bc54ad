"""Expand an experiment folder into its jobs: merge YAML layers, list stages, hash jobs.

``pipeline.yaml``, a scale (``scales/<name>.yaml``), ``scales/smoke.yaml`` and, if it exists,
``scales/<name>.smoke.yaml`` have the same keys. A later file wins. A stage becomes one job for each
grid point and seed. A stage that is tuned becomes one job that finds the settings, and one run for
each KL budget and seed with the best settings at that budget.
"""

import copy
import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import ConfigError
from alignlab.files import DONE, read_record, sha_of
from alignlab.plan import overlay
from alignlab.plan.content import WRITTEN, by_content
from alignlab.plan.schema import PipelineKeys, check, check_count
from alignlab.results.run_folder import ALL, STAGES, job_name

SCALE, SMOKE = "[A-Za-z0-9][A-Za-z0-9_-]*", "smoke"
PROBE = "alignlab.callbacks.probe.FrontierProbe"
MOST_RUNS = 2_000  # of one stage: grid points times seeds
CHECK, FRONTIER = "check", "frontier"  # jobs of no stage: check the configs, draw the frontier
TAKEN = ("seed", "out", "experiment", "results", FRONTIER, CHECK, "workers", "logs")
ROWS = (  # of the frontier, of no run
    "best_of_n", "best_of_n_gt", "oracle", "oracle_proxy", "dual_bound", "reference"
)  # fmt: skip
INSTALLED = Path(__file__).parents[1]  # in a wheel it holds ``experiments`` of the repository
TUNING = "tuning"  # key of the job that finds a stage's settings; folder of all tuning tables
TUNE: dict[str, Any] = {"trials": 24, "seed": 100, "budgets": [0.5, 1.0, 2.0]}  # defaults
LONGEST_NAME = 200  # characters of a run's name; file systems take 255 for a file's


@dataclass(frozen=True)
class Stage:
    """A stage after its YAML layers are merged.

    Args:
        name: Its key.
        entry: Its other keys, merged.
        settings: The ``set`` of each layer, in order.
    """

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()

    def changed(self, entry: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> "Stage":
        """This stage changed by the keys of an overlay or of a sweep's arm.

        Another ``fit`` or ``call`` makes it another stage, and its old arguments are dropped.

        Args:
            entry: The keys.
            common: The layer's ``set`` for every stage that trains.

        Raises:
            ConfigError: ``set`` is given for a call.
        """
        over = {key: value for key, value in entry.items() if key != "set"}
        gone: set[str] = set()
        if "fit" in over:
            gone = {"call", "args"}
        elif "call" in over and over["call"] != self.entry.get("call"):
            gone = {"fit", "args"}
        kept = {key: value for key, value in self.entry.items() if key not in gone}
        merged = overlay.merge(kept, over)
        if entry.get("set") and "call" in merged:
            raise ConfigError(
                f"stage {self.name!r}: 'set' is for a stage that trains; a call takes 'args'."
            )
        return Stage(self.name, merged, (*self.settings, common or {}, entry.get("set") or {}))

    def check(self) -> None:
        """Refuse a name that cannot be a folder, and a stage without one of ``fit`` and ``call``.

        Raises:
            ConfigError: A wrong name, or not exactly one of the two.
        """
        where = f"stage {self.name!r}"
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name) or self.name in TAKEN:
            raise ConfigError(
                f"{where}: a stage's name is lower-case letters, digits and _, and none of "
                f"{', '.join(TAKEN)}."
            )
        if ("fit" in self.entry) == ("call" in self.entry):
            raise ConfigError(
                f"{where} needs exactly one of 'fit: stage.yaml' and 'call: a.function'."
            )
        if "fit" in self.entry and "args" in self.entry:
            raise ConfigError(f"{where}: 'args' are for a call; a stage that trains takes 'set'.")
        if (objective := self.entry.get("objective")) in ROWS:
            raise ConfigError(
                f"{where}: the frontier has a row {objective!r} of its own. Choose another "
                f"objective name, none of {', '.join(ROWS)}."
            )
        if self.entry.get("tune"):
            self._check_tune(where)

    def _check_tune(self, where: str) -> None:
        """Refuse ``tune`` beside keys that exclude it, or without keys that it needs."""
        if "call" in self.entry or self.entry.get("grid"):
            other = "call" if "call" in self.entry else "grid"
            raise ConfigError(f"{where} has both '{other}' and 'tune'. Keep one of them.")
        missing = [key for key in ("per_seed", "objective") if not self.entry.get(key)]
        missing += [f"tune.{key}" for key in ("space", "pool") if not self.entry["tune"].get(key)]
        if missing:
            raise ConfigError(f"{where} has 'tune' and lacks {', '.join(missing)}. Add it.")


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
        config_sha: Hash of spec, seed, data files and upstream hashes.
        budget: KL in nats, of a run that takes the settings which trials found to be best there.
        lacks: Why it cannot be carried out yet; empty if it can.
    """

    stage: str
    key: str
    seed: int | None
    hparams: dict[str, Any]
    objective: str | None
    spec: dict[str, Any]
    needs: dict[str, tuple[str, ...]]
    config_sha: str
    budget: float | None = None
    lacks: str = ""

    @property
    def tunes(self) -> bool:
        """Whether it is the job that finds its stage's settings."""
        return "tune" in self.spec

    @property
    def length(self) -> int:
        """How many runs it consists of: its trials, if it tunes."""
        return int(self.spec["tune"]["trials"]) if self.tunes else 1

    @property
    def name(self) -> str:
        """``dpo-beta0.5-s1``: the ``run_id`` in the tables."""
        return job_name(self.stage, self.key)

    @property
    def folder(self) -> str:
        """Where its output lies, below the results folder."""
        return f"{STAGES}/{self.stage}/{self.key}"


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
        notes: Lines to print: keys that have no effect, and settings taken from other results.
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
        """The asked-for jobs that have rows in ``points.csv``."""
        return [job for job in self.asked if job.objective is not None]

    def folder(self, job: Job) -> Path:
        """The job's output folder."""
        return self.results / job.folder

    def record(self, job: Job) -> Path:
        """The file that records a finished job's output.

        A tuning job's record lies with its table beside ``points.csv``, so that the settings remain
        when the trials' folder is deleted.
        """
        if job.tunes:
            return self.results / TUNING / f"{job.stage}.json"
        return self.folder(job) / DONE

    def choices(self, job: Job) -> list[dict[str, Any]]:
        """Budget, trial, settings and share that tuning chose for ``job``'s stage, by budget.

        Empty if the job's settings are not tuned, or not yet.
        """
        tuning = self.jobs.get(job_name(job.stage, TUNING))
        if job.budget is None or tuning is None:
            return []
        record = read_record(self.record(tuning)) or {}
        chosen: list[dict[str, Any]] = record.get("chosen", [])
        return chosen if record.get("config_sha") == tuning.config_sha else []

    def chosen(self, job: Job) -> dict[str, Any]:
        """Dotted key -> value that tuning found to be best at ``job``'s budget."""
        found = (each["settings"] for each in self.choices(job) if each["budget"] == job.budget)
        return dict(next(found, None) or {})

    def hparams(self, job: Job) -> dict[str, Any]:
        """The job's grid point or tuned settings, short name -> value."""
        return job.hparams | short_names(self.chosen(job))

    def needless(self, job: Job) -> bool:
        """Whether a tuned run need not be trained.

        This holds if no trial reached its budget, or if the run at an earlier budget has the
        same settings, and so the rows.
        """
        chosen = {each["budget"]: each["trial"] for each in self.choices(job)}
        if job.budget not in chosen:
            return False
        first = next(budget for budget, trial in chosen.items() if trial == chosen[job.budget])
        return chosen[job.budget] is None or first != job.budget

    def resolved(self, job: Job) -> dict[str, Any]:
        """The job's spec with folders, seed, names and tuned settings filled in.

        Raises:
            ConfigError: A placeholder is not defined.
        """
        root = self.inputs or self.results
        known: dict[str, Any] = {
            "out": str(self.folder(job)),
            "experiment": str(self.experiment),
            "results": str(root),  # caches are shared, too
        }
        known |= {} if job.seed is None else {"seed": job.seed}

        def lookup(name: str) -> Any:
            if name in job.needs:
                folders = [str(root / self.jobs[need].folder) for need in job.needs[name]]
                return folders if len(folders) > 1 else folders[0]
            if name in known:
                return known[name]
            listed = ", ".join((*job.needs, *known))
            advice = f"Add {name!r} to its needs, or use one of {listed}."
            advice = "To have one, give it 'per_seed: true'." if name == "seed" else advice
            raise ConfigError(
                f"stage {job.stage!r} uses {{{name}}}, which is not defined. {advice}"
            )

        filled: dict[str, Any] = overlay.fill(job.spec, lookup)
        for dotted, value in self.chosen(job).items():
            overlay.set_dotted(filled["config"], dotted, value)
        return filled

    def to_check(self, job: Job) -> dict[str, Any]:
        """The job's spec, and whether its evaluations are to be points of the frontier.

        Raises:
            ConfigError: It cannot be carried out yet.
        """
        if job.lacks:
            raise ConfigError(job.lacks)
        return self.resolved(job) | {"evaluated": job.objective is not None or job.tunes}


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
            earlier stage, an undefined placeholder.
    """
    experiment = found(experiment)
    layers = read_layers(experiment, scale, smoke)
    if seeds is not None:
        layers.append({"seeds": list(seeds)})
        check(PipelineKeys, layers[-1], "--seeds")
    asked = next((layer["seeds"] for layer in reversed(layers) if layer.get("seeds")), [0])
    frontier = reduce(overlay.merge, (layer.get("frontier") or {} for layer in layers))
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
    plan = Plan(
        name=name,
        experiment=experiment,
        results=folder,
        seeds=tuple(asked),
        jobs=jobs,
        frontier=frontier.get("args") or {},
        frontier_needs=tuple(job.name for found in read.values() for job in found),
        stages={stage.name: stage for stage in stages},
        notes=(
            *_unused(stages, jobs, {key for layer in layers for key in layer}),
            *_said_of_taken(stages),
        ),
    )
    for job in jobs.values():
        plan.resolved(job)  # every placeholder can be filled
    return plan


def found(path: Path) -> Path:
    """Return ``path``, or the installed experiment or file of one where ``path`` is not there.

    A line on standard error says where the installed one is.
    """
    installed = INSTALLED / path
    if path.parts[:1] != ("experiments",) or path.exists() or not installed.exists():
        return path
    print(f"{path} is not here; using {installed}.", file=sys.stderr)
    return installed


def read_layers(experiment: Path, scale: str | None, smoke: bool) -> list[dict[str, Any]]:
    """Read the files of an experiment at ``scale``; each is to be merged into those before it.

    Raises:
        ConfigError: A file is missing or wrong.
    """
    if not (experiment / "pipeline.yaml").is_file():
        raise ConfigError(
            f"{experiment}: no pipeline.yaml there. Name an experiment folder, such as "
            "experiments/quickstart."
        )
    if scale is not None and not re.fullmatch(SCALE, scale):
        raise ConfigError(f"a scale is named by letters, digits, _ and -, got {scale!r}.")
    if scale == SMOKE:  # its results folder would be that of a smoke run
        raise ConfigError("smoke is not a scale of its own: give --smoke, with a scale or without.")
    scales = experiment / "scales"
    chain = _extended(scales, scale) if scale else []
    names = [*chain, *[SMOKE] * smoke]
    if smoke:  # what these scales alone need to be small
        names += [f"{name}.{SMOKE}" for name in chain if (scales / f"{name}.smoke.yaml").is_file()]
    layers: list[dict[str, Any]] = []
    for path in [experiment / "pipeline.yaml", *(scales / f"{name}.yaml" for name in names)]:
        layers.append(_read(_there(path), layers))
    return layers


def _extended(scales: Path, scale: str) -> list[str]:
    """The scales that ``scale`` extends, first ones first, and itself at the end."""
    chain = [scale]
    while further := overlay.read_yaml(_there(scales / f"{chain[0]}.yaml")).get("extends"):
        if not re.fullmatch(SCALE, str(further)) or further in (*chain, SMOKE):
            raise ConfigError(
                f"{scales / chain[0]}.yaml: extends must name another scale of the experiment "
                f"that does not extend this one, got {further!r}."
            )
        chain.insert(0, further)
    return chain


def _there(path: Path) -> Path:
    """Return ``path`` if it is a file; otherwise raise an error that lists the known scales."""
    if path.is_file():
        return path
    known = sorted(p.stem for p in path.parent.glob("*.yaml") if "." not in p.stem)
    raise ConfigError(
        f"{path.parents[1]} has no scale {path.stem!r}. Known: {', '.join(known) or 'none'}."
    )


def _read(path: Path, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layer = overlay.read_yaml(path)
    keys = check(PipelineKeys, layer, str(path))
    if keys.extends and not before:
        raise ConfigError(f"{path}: 'extends' is for a scale, which names another. Take it out.")
    stages = {name for earlier in before for name in earlier.get("stages") or {}}
    for name, entry in (layer.get("stages") or {}).items():
        if name not in stages and not {"fit", "call"} & set(entry or {}):
            raise ConfigError(
                f"{path}: stage {name!r} is new and has neither 'fit' nor 'call'. Add exactly one "
                f"of them, or name a stage to change: {', '.join(sorted(stages)) or 'none'}."
            )
    return layer


def merged_stages(layers: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages, each after those it needs; a later layer adds, changes or drops (``null``) them.

    Raises:
        ConfigError: A stage is impossible, or ``only`` names none.
    """
    stages: dict[str, Stage] = {}
    listed = [layer.get("stages") or {} for layer in layers]
    for name in dict.fromkeys(name for entries in listed for name in entries):
        if any(name in entries and entries[name] is None for entries in listed):
            continue
        stage, tunes = Stage(name), list[Mapping[str, Any]]()
        for layer, entries in zip(layers, listed, strict=True):
            own = entries.get(name) or {}
            stage = stage.changed(own, layer.get("set"))
            tunes += [layer.get("tune") or {}, own.get("tune") or {}]
        if stage.entry.get("tune") is not None:
            stage.entry["tune"] = reduce(overlay.merge, tunes, TUNE)
        stage.check()
        stages[name] = stage
    only = next((layer["only"] for layer in reversed(layers) if layer.get("only")), None)
    if only is None:
        return list(_in_order(stages, stages))
    for name in set(only) - set(stages):
        raise ConfigError(f"only: there is no stage {name!r}. Stages: {', '.join(stages)}.")
    frontier = reduce(overlay.merge, (layer.get("frontier") or {} for layer in layers))
    return list(_in_order(stages, [*only, *(frontier.get("needs") or [])]))


def _in_order(stages: Mapping[str, Stage], names: Iterable[str]) -> Iterator[Stage]:
    """The stages ``names`` as they are listed, each after those that it needs."""
    placed: set[str] = set()

    def place(need: str) -> Iterator[Stage]:
        name = need.partition("-")[0]  # of a run, its stage
        if name in stages and name not in placed:
            placed.add(name)
            entry = stages[name].entry
            trials = (entry.get("tune") or {}).get("needs") or []
            for need in [*(entry.get("needs") or []), *trials]:
                yield from place(need)
            yield stages[name]

    for name in names:
        yield from place(name)


def expand(
    stage: Stage,
    experiment: Path,
    jobs: Mapping[str, Job],
    asked: Sequence[int],
    others: Sequence[int] = (),
) -> list[Job]:
    """The stage's jobs.

    Args:
        stage: To expand.
        experiment: The experiment's folder, in which stage files are looked for.
        jobs: Those of the stages before it.
        asked: Seeds of a stage that runs once for each.
        others: Further seeds of which single runs are needed.

    Raises:
        ConfigError: An unreadable file, a need that is not an earlier stage, or an impossible grid.
    """
    entry = stage.entry
    where = f"stage {stage.name!r}"
    spec, tune, taken = _spec(stage, experiment), _tuning(stage), _taken(stage)
    upstream = needed(stage.name, entry.get("needs") or [], jobs)
    if tune:
        ((_, settings, lacks),) = taken
        fixed = {key: value for key, value in settings.items() if key not in tune["space"]}
        found = _tuned(stage, tune, _with_point(spec, fixed, None), experiment, jobs, asked)
        return [replace(job, hparams=short_names(fixed), lacks=lacks) for job in found]
    points = _points(entry.get("grid") or {}, where)
    seeds = [*asked, *others] if entry.get("per_seed") else [None]
    check_count(len(taken) * len(points) * len(seeds), MOST_RUNS, f"{where}: runs")
    check_names(stage.name, points, where)
    expanded = []
    for (key, settings, lacks), point, seed in itertools.product(taken, points, seeds):
        here = _with_point(spec, {**settings, **point}, seed)
        parts = [*key, *_name_parts(point)] + ([] if seed is None else [f"s{seed}"])
        job = Job(
            stage=stage.name,
            key="-".join(parts) or ALL,
            seed=seed,
            hparams=short_names({**settings, **point}),
            objective=entry.get("objective"),
            spec=here,
            needs={},
            config_sha="",
            lacks=lacks,
        )
        expanded.append(_hashed(job, upstream, experiment, asked))
    return expanded


class _Taken(NamedTuple):
    """The settings that trials of another results folder found at a budget.

    Attributes:
        key: Part of the runs' names, empty where one budget is taken.
        settings: Dotted key -> value.
        lacks: A message where that folder has no such settings yet.
    """

    key: list[str]
    settings: dict[str, Any]
    lacks: str


def _tuning(stage: Stage) -> dict[str, Any]:
    """The stage's ``tune`` keys, with the part of the space that trials still have to search.

    Empty if nothing is left to search.

    Raises:
        ConfigError: A free key is not in the space, or the trials would start from the settings of
            several budgets.
    """
    tune = stage.entry.get("tune") or {}
    space = _space(tune)
    if not tune.get("fixed"):
        return {**tune, "space": space} if tune else {}
    where, free = f"stage {stage.name!r}: tune.fixed", tune["fixed"]["free"]
    if unknown := [key for key in free if key not in space]:
        raise ConfigError(f"{where}.free has {unknown[0]}, not in the space: {', '.join(space)}.")
    if not free:
        return {}
    if len(taken := _taken(stage)) > 1:
        raise ConfigError(
            f"{where} with free keys takes settings at one KL only, got "
            f"{_fixed_budgets(tune)}. Name one in tune.fixed.budgets."
        )
    found = {key: taken[0].settings.get(key) for key in free}
    return {**tune, "space": {key: space[key] for key in free}, "first": found}


def _space(tune: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values for key, values in tune.get("space", {}).items() if values is not None}


def _fixed_budgets(tune: Mapping[str, Any]) -> list[float]:
    return list(map(float, tune["fixed"].get("budgets") or tune["budgets"]))


def _taken(stage: Stage) -> list[_Taken]:
    """Settings from another folder, one entry per budget; an empty entry if none are taken."""
    tune = stage.entry.get("tune") or {}
    if not tune.get("fixed"):
        return [_Taken([], {}, "")]
    path = Path(tune["fixed"]["results"]) / TUNING / f"{stage.name}.json"
    chosen = {each["budget"]: each for each in (read_record(path) or {}).get("chosen", [])}
    space, budgets = _space(tune), _fixed_budgets(tune)
    taken: list[_Taken] = []
    for budget in budgets:
        found = chosen.get(budget, {}).get("settings") or {}
        if found and any(found == other.settings for other in taken):
            continue  # the same trial is the best at both
        lacks = f"stage {stage.name!r}: tune.fixed: {path} has no settings for KL {budget:g}. "
        lacks = "" if found.keys() >= space.keys() else lacks + "Run its trials first."
        taken.append(_Taken([f"best{_label(budget)}"] if len(budgets) > 1 else [], found, lacks))
    return taken


def _said_of_taken(stages: Iterable[Stage]) -> Iterator[str]:
    """Messages about settings taken from another results folder."""
    for stage in stages:
        tune, free = stage.entry.get("tune") or {}, _tuning(stage).get("space", {})
        for taken in _taken(stage):
            settings = {key: value for key, value in taken.settings.items() if key not in free}
            if settings:
                listed = ", ".join(f"{key} {value}" for key, value in short_names(settings).items())
                folder = tune["fixed"]["results"]
                yield " ".join(
                    [f"stage {stage.name!r}", *taken.key, f"takes from {folder}: {listed}"]
                )


def _tuned(
    stage: Stage,
    keys: Mapping[str, Any],
    spec: dict[str, Any],
    experiment: Path,
    jobs: Mapping[str, Job],
    asked: Sequence[int],
) -> Iterator[Job]:
    """The job that finds the stage's settings, then a run for each budget and seed.

    Raises:
        ConfigError: The trials' seed is also a seed of the runs, or a need is no earlier stage.
    """
    seed = keys["seed"]
    if seed in asked:
        raise ConfigError(
            f"stage {stage.name!r}: tune.seed {seed} is also a seed of the runs, so settings would "
            "be chosen and judged on the same seed. Take another."
        )
    needs = stage.entry.get("needs") or []
    trial = copy.deepcopy(spec)
    for dotted, value in (keys.get("set") or {}).items():
        overlay.set_dotted(trial["config"], dotted, value)
    trial = _with_point(trial, {}, seed)
    budgets = list(map(float, keys["budgets"]))
    trial["tune"] = {key: keys[key] for key in ("trials", "seed", "pool", "space")}
    trial["tune"]["budgets"] = budgets
    if "first" in keys:
        trial["tune"]["first"] = {key: keys["first"].get(key) for key in keys["space"]}
    tuning = Job(stage.name, TUNING, seed, {}, None, trial, {}, "")
    upstream = needed(stage.name, [*needs, *(keys.get("needs") or [])], jobs)
    yield (tuning := _hashed(tuning, upstream, experiment, asked))
    upstream = needed(stage.name, needs, jobs) | {tuning.name: [tuning]}
    for budget, own in itertools.product(budgets, asked):
        key, here = f"best{_label(budget)}-s{own}", _with_point(spec, {}, own)
        run = Job(stage.name, key, own, {}, stage.entry["objective"], here, {}, "", budget)
        yield _hashed(run, upstream, experiment, asked)


def _hashed(
    job: Job, upstream: Mapping[str, Sequence[Job]], experiment: Path, asked: Sequence[int]
) -> Job:
    """``job`` with its hash, and with the jobs of ``upstream`` that match its seed as needs."""
    own = (None, *asked) if job.seed is None else (None, job.seed)
    needs = {
        name: [each for each in found if each.name == name or each.seed in own]
        for name, found in upstream.items()
    }
    spec = job.spec if job.budget is None else {**job.spec, "budget": job.budget}
    return replace(
        job,
        needs={name: tuple(each.name for each in found) for name, found in needs.items()},
        config_sha=_config_sha(spec, job.seed, needs, experiment),
    )


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


def needed(stage: str, needs: Iterable[str], jobs: Mapping[str, Job]) -> dict[str, list[Job]]:
    """The jobs of each need: all of an earlier stage, or a single one by its name.

    Raises:
        ConfigError: There is none, or it is a stage with ``tune``.
    """
    found = {n: [job for job in jobs.values() if n in (job.stage, job.name)] for n in needs}
    for need in [name for name, own in found.items() if not own]:
        earlier = dict.fromkeys(job.stage for job in jobs.values())
        raise ConfigError(
            f"stage {stage!r} needs {need!r}, which is neither an earlier stage nor a run of one. "
            f"Stages before it: {', '.join(earlier) or 'none'}."
        )
    for need, own in found.items():
        if any(job.budget is not None for job in own):
            raise ConfigError(
                f"stage {stage!r} needs {need!r}, whose settings are found by trials, so its runs "
                "are not known in advance. Take it out of the needs."
            )
    return found


def _points(grid: Any, where: str) -> list[dict[str, Any]]:
    """A mapping of lists is a product; a list of mappings is taken point by point."""
    if isinstance(grid, list):
        return grid
    axes = {key: values for key, values in grid.items() if values is not None}
    check_count(math.prod(map(len, axes.values())), MOST_RUNS, f"{where}: grid points")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def _with_point(spec: dict[str, Any], point: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    here = copy.deepcopy(spec)
    root = "config" if "config" in here else "args"
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
        name = "-".join([stage, *_name_parts(point)])
        if len(name) > LONGEST_NAME:
            raise ConfigError(
                f"{where}: run {name[:40]}... would have a name of {len(name)} characters, more "
                f"than the {LONGEST_NAME} that fit. Use shorter values."
            )
        if name in found:
            raise ConfigError(
                f"{where}: {found[name]} and {dict(point)} would both be run {name!r}. Leave one "
                "out, or make them differ in letters or digits."
            )
        found[name] = dict(point)


def _name_parts(point: Mapping[str, Any]) -> list[str]:
    return [f"{name}{_label(value)}" for name, value in short_names(point).items()]


def short_names(point: Mapping[str, Any]) -> dict[str, Any]:
    """``point`` keyed by the last parts of its dotted keys, if these all differ."""
    last = {key.rsplit(".", 1)[-1]: value for key, value in point.items()}
    short = len(last) == len(point)
    return last if short else {key.replace(".", "_"): value for key, value in point.items()}


def _label(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", str(value))


def _with_callback(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with its ``probe`` as the first callback, so that both spellings hash alike.

    ``parent``, the run that the config was forked from, is left out: it is not a setting.
    """
    probe, trainer = config.get("probe"), config.get("trainer") or {}
    if probe is not None:
        callbacks = trainer.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        probe = probe if "class_path" in probe else {"class_path": PROBE, "init_args": probe}
        config = {**config, "trainer": {**trainer, "callbacks": [probe, *callbacks]}}
    return {key: value for key, value in config.items() if key not in ("probe", "parent")}


def _config_sha(
    spec: Mapping[str, Any],
    seed: int | None,
    needs: Mapping[str, Sequence[Job]],
    experiment: Path,
) -> str:
    if "config" in spec:
        spec = {**spec, "config": _with_callback(spec["config"])}
    return sha_of(
        {
            "spec": by_content(spec, experiment),
            "seed": seed,
            "upstream": {name: [job.config_sha for job in found] for name, found in needs.items()},
        }
    )


def _seeds_by_name(stages: Iterable[Stage], asked: Sequence[int]) -> list[int]:
    """Seeds that were not asked for but are needed, by name (``reward_model-s0``) or by trials."""
    needs = [need for stage in stages for need in stage.entry.get("needs") or []]
    named = {int(match[1]) for need in needs if (match := re.fullmatch(r".+-s(\d+)", need))}
    named |= {tune["seed"] for stage in stages if (tune := _tuning(stage))}
    return sorted(named - set(asked))


def _unused(
    stages: Sequence[Stage], jobs: Mapping[str, Job], given: Iterable[str]
) -> Iterator[str]:
    """Messages about keys and files that no stage uses."""
    entries = [stage.entry for stage in stages]
    uses = {
        "seeds": (any(e.get("per_seed") for e in entries), "no stage has 'per_seed: true'"),
        "set": (any("fit" in e for e in entries), "no stage trains"),
        "tune": (any(e.get("tune") for e in entries), "no stage has 'tune'"),
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
                yield f"stage {stage.name!r} runs once for each seed but does not use {{seed}}"


def _check_literals(job: Job, results: Path) -> None:
    """Refuse a path into the run's own results; a placeholder would declare the need.

    Raises:
        ConfigError: There is one. Making the file would then change the run's hash.
    """
    folder = os.path.abspath(results)
    for text in _texts(job.spec):
        literal = "/" in text and "{" not in text
        if literal and Path(os.path.abspath(text)).is_relative_to(folder):
            raise ConfigError(
                f"stage {job.stage!r}: {text} lies in this experiment's own results. Name the "
                "stage that makes it in 'needs' and write {stage} for its folder, so that it is "
                "made first."
            )


def _texts(value: Any) -> Iterator[str]:
    """All strings of a config except the folders that a run writes to."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in WRITTEN:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
