"""Stages, and their jobs: one for each grid point and seed, each with the hash of its inputs."""

import copy
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import sha_of
from alignlab.plan import overlay
from alignlab.plan.content import by_content
from alignlab.plan.schema import check_count
from alignlab.results.run_folder import ALL, STAGES, job_name

PROBE = "alignlab.callbacks.probe.FrontierProbe"
MOST_RUNS = 2_000  # of one stage: grid points times seeds
FIXED_NAMES = ("seed", "out", "experiment", "results")
TAKEN = (*FIXED_NAMES, "frontier", "check", "workers", "logs")
ROWS = ("best_of_n", "best_of_n_gt", "oracle", "reference")  # of the frontier, of no run
LONGEST_NAME = 200  # characters of a run's name; file systems take 255 for a file's


@dataclass(frozen=True)
class Stage:
    """A stage as the layers give it.

    Args:
        name: Its key.
        entry: Its other keys, merged.
        settings: The ``set`` of each layer, in order.
    """

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()

    def changed(self, entry: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> "Stage":
        """This stage under the keys of an overlay or of a sweep's arm.

        Another ``fit`` or ``call`` makes it another stage, which keeps no arguments.

        Args:
            entry: The keys.
            common: The layer's ``set`` for every training.

        Raises:
            ConfigError: ``set`` of a call.
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
                f"{where}: objective {objective!r} is a row of its own in the frontier. "
                f"Choose a name other than {', '.join(ROWS)}."
            )


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
    """

    stage: str
    key: str
    seed: int | None
    hparams: dict[str, Any]
    objective: str | None
    spec: dict[str, Any]
    needs: dict[str, tuple[str, ...]]
    config_sha: str

    @property
    def name(self) -> str:
        """``dpo-beta0.5-s1``: the ``run_id`` in the tables."""
        return job_name(self.stage, self.key)

    @property
    def folder(self) -> str:
        """Where its output lies, below the results folder."""
        return f"{STAGES}/{self.stage}/{self.key}"


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
        ConfigError: A file that cannot be read, a need that is not an earlier stage, a grid or a
            placeholder that means nothing.
    """
    entry = stage.entry
    where = f"stage {stage.name!r}"
    spec = _spec(stage, experiment)
    upstream = needed(stage.name, entry.get("needs") or [], jobs)
    points = _points(entry.get("grid") or {}, where)
    seeds = [*asked, *others] if entry.get("per_seed") else [None]
    check_count(len(points) * len(seeds), MOST_RUNS, f"{where}: runs")
    check_names(stage.name, points, where)
    expanded = []
    for point, seed in itertools.product(points, seeds):
        own = (None, *asked) if seed is None else (None, seed)
        needs = {
            name: [job for job in found if job.name == name or job.seed in own]
            for name, found in upstream.items()
        }
        here = _with_point(spec, point, seed)
        _check_placeholders(where, here, needs, seed)
        parts = _name_parts(point) + ([] if seed is None else [f"s{seed}"])
        job = Job(
            stage=stage.name,
            key="-".join(parts) or ALL,
            seed=seed,
            hparams=dict(zip(_short_names(point), point.values(), strict=True)),
            objective=entry.get("objective"),
            spec=here,
            needs={name: tuple(job.name for job in found) for name, found in needs.items()},
            config_sha=_config_sha(here, seed, needs, experiment),
        )
        expanded.append(job)
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


def needed(stage: str, needs: Iterable[str], jobs: Mapping[str, Job]) -> dict[str, list[Job]]:
    """The jobs of each need: all of an earlier stage, or a single one by its name.

    Raises:
        ConfigError: There is none.
    """
    found = {n: [job for job in jobs.values() if n in (job.stage, job.name)] for n in needs}
    for need in [name for name, own in found.items() if not own]:
        earlier = dict.fromkeys(job.stage for job in jobs.values())
        raise ConfigError(
            f"stage {stage!r} needs {need!r}, which is neither an earlier stage nor a run of one. "
            f"Stages before it: {', '.join(earlier) or 'none'}."
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
                "out, or let them differ in more than signs that a file's name cannot hold."
            )
        found[name] = dict(point)


def _name_parts(point: Mapping[str, Any]) -> list[str]:
    return [
        f"{short}{_label(value)}"
        for short, value in zip(_short_names(point), point.values(), strict=True)
    ]


def _short_names(point: Mapping[str, Any]) -> list[str]:
    last = [key.rsplit(".", 1)[-1] for key in point]
    return last if len(set(last)) == len(last) else [key.replace(".", "_") for key in point]


def _label(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", str(value))


def _check_placeholders(
    where: str, spec: Any, needs: Mapping[str, Sequence[Job]], seed: int | None
) -> None:
    def known(name: str) -> str | list[str]:
        if name == "seed" and seed is None:
            raise ConfigError(f"{where} uses {{seed}}: give it 'per_seed: true'.")
        if name in needs:
            return ["", ""] if len(needs[name]) > 1 else ""
        if name not in FIXED_NAMES:
            raise ConfigError(
                f"{where} uses {{{name}}}, which is not defined. Add {name!r} to its "
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
