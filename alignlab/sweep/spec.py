"""A sweep's YAML, read and checked against the experiment that it varies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.pipeline import overlay, records
from alignlab.pipeline.plan import STAGE_KEYS, Job, Plan, Stage, check_stage, expand, load_plan
from alignlab.sweep.samplers import LISTED, PRUNERS, SAMPLERS, design, named
from alignlab.sweep.space import Dimension, Point, Space, read_dimension

KEYS = {
    "experiment", "scale", "seeds", "arms", "space", "metrics", "sampler", "pruner", "trials",
    "minutes", "storage", "stop", "frontier", "process_per_trial",
}  # fmt: skip
ARM_KEYS = (STAGE_KEYS - {"grid", "per_seed"}) | {"stage", "space"}
DIRECTIONS = ("maximize", "minimize")
BOUND = "alignlab.callbacks.kl_bound.KLBound"


@dataclass(frozen=True)
class Stop:
    """When a run ends early.

    Args:
        kl: At an evaluation beyond this KL, in nats per completion.
        dominated: After so many evaluations in a row at which a finished run has less KL and more
            reward.
    """

    kl: float | None = None
    dominated: int | None = None


@dataclass(frozen=True)
class Sweep:
    """What to try, how to choose it and how to judge it.

    Args:
        name: Of the sweep, ``sweep-`` and the file's.
        plan: The experiment's stages for the sweep's seeds; its results folder holds the inputs.
        stages: The arms as stages.
        space: What is varied.
        metrics: Name -> ``maximize`` or ``minimize``; values after the last step, mean over seeds.
        sampler: Name and settings.
        pruner: Name and settings, or ``None``.
        trials: How many, at most; ``None`` for a whole grid.
        minutes: After so much time no further trial is begun.
        storage: Where the study is kept; ``None`` for a file beside the tables.
        stop: When a run ends early.
        points: Those of a design that is known beforehand; ``None`` where the sampler goes by the
            results.
        frontier: Settings of the closing evaluation.
        process_per_trial: Every run has a process of its own, instead of many runs one.
    """

    name: str
    plan: Plan
    stages: dict[str, Stage]
    space: Space
    metrics: dict[str, str]
    sampler: tuple[str, dict[str, Any]]
    pruner: tuple[str, dict[str, Any]] | None
    trials: int | None
    minutes: float | None
    storage: str | None
    stop: Stop
    points: list[Point] | None
    frontier: dict[str, Any]
    process_per_trial: bool

    def jobs(self, point: Point) -> list[Job]:
        """The point's runs, one for each seed.

        Raises:
            ConfigError: A key that runs into a value of the config.
        """
        plan = self.plan
        stage = self.stages[point.arm]
        entry = {**stage.entry, "grid": [point.values], "per_seed": True}
        jobs = expand(replace(stage, entry=entry), plan.experiment, plan.seeds, [], plan.jobs)
        return [self._with_bound(job) for job in jobs]

    def _with_bound(self, job: Job) -> Job:
        if self.stop.kl is None:
            return job
        if "config" not in job.spec:
            raise ConfigError(f"arm {job.stage!r}: 'stop' is for trainings, this arm is a call.")
        config = overlay.merge(job.spec["config"], {})
        trainer = overlay.merge(config.get("trainer") or {}, {})
        bound = {"class_path": BOUND, "init_args": {"limit": self.stop.kl}}
        config["trainer"] = {**trainer, "callbacks": [*(trainer.get("callbacks") or []), bound]}
        sha = records.sha_of([job.config_sha, bound])
        return replace(job, spec={"config": config}, config_sha=sha)

    @property
    def needs(self) -> list[str]:
        """Jobs of the experiment whose output the trials and the closing evaluation read."""
        some = [job for arm in self.stages for job in self.jobs(self.middle(arm))]
        read = [name for job in some for names in job.needs.values() for name in names]
        return list(dict.fromkeys([*read, *self.plan.frontier_needs]))

    def middle(self, arm: str) -> Point:
        """Some point of ``arm``."""
        return Point(arm, {d.key: d.ends()[0] for d in self.space.arms[arm]})

    def probes(self) -> dict[str, Job]:
        """A run for each value that a key may take, or the ends of its range, to check them all."""
        found = {}
        for arm, dimensions in self.space.arms.items():
            start = self.middle(arm)
            found[f"arm {arm}"] = self.jobs(start)[0]
            for d in dimensions:
                for value in d.ends():
                    point = Point(arm, {**start.values, d.key: value})
                    found[f"arm {arm}, {d.key}: {value}"] = self.jobs(point)[0]
        return found

    @property
    def definition(self) -> str:
        """Hash of all that makes trials comparable: trials of another one are not mixed in."""
        arms = {arm: [job.config_sha for job in self.jobs(self.middle(arm))] for arm in self.stages}
        if self.points is not None:
            what: Any = [self.space.params(point) for point in self.points]
        else:
            what = [self.sampler, {a: [repr(d) for d in ds] for a, ds in self.space.arms.items()}]
        stop = [self.stop.kl, self.stop.dominated, self.pruner]
        return records.sha_of([arms, what, self.metrics, stop])


def load_sweep(path: Path) -> Sweep:
    """Read a sweep's YAML and the experiment that it names.

    Raises:
        ConfigError: A file that cannot be read, an unknown key, a value that cannot be.
    """
    entry = overlay.read_yaml(path)
    _only(entry, KEYS, str(path))
    for key in ("experiment", "arms", "metrics", "sampler"):
        if not entry.get(key):
            raise ConfigError(f"{path}: {key!r} is missing. A sweep needs it.")
    seeds = entry.get("seeds")
    if seeds is not None and not (isinstance(seeds, list) and all(type(s) is int for s in seeds)):
        raise ConfigError(f"{path}: seeds must be a list of whole numbers, got {seeds!r}.")
    plan = load_plan(Path(entry["experiment"]), scale=entry.get("scale"), seeds=seeds)
    arms = entry["arms"]
    if not isinstance(arms, Mapping):
        raise ConfigError(f"{path}: arms are names and their settings, as in {{dpo: {{}}}}.")
    stages = {str(name): _arm(str(name), arm or {}, plan, path) for name, arm in arms.items()}
    space = Space(
        {str(name): _dimensions(str(name), arm or {}, entry) for name, arm in arms.items()}
    )
    sampler = named(f"{path}: sampler", entry["sampler"], {"grid": None, **SAMPLERS})
    trials = _positive(path, entry, "trials", int)
    minutes = _positive(path, entry, "minutes", (int, float))
    metrics = _metrics(path, entry["metrics"])
    if sampler[0] != "grid" and trials is None and (minutes is None or sampler[0] in LISTED):
        raise ConfigError(f"{path}: sampler {sampler[0]} needs 'trials', the number of them.")
    seed = int(sampler[1].get("seed", 0))
    return Sweep(
        name=f"sweep-{path.stem}",
        plan=plan,
        stages=stages,
        space=space,
        metrics=metrics,
        sampler=sampler,
        pruner=_pruner(path, entry, metrics),
        trials=trials,
        minutes=minutes,
        storage=entry.get("storage"),
        stop=_stop(path, entry.get("stop") or {}),
        points=design(*sampler, space, trials, seed),
        frontier=plan.frontier | (entry.get("frontier") or {}),
        process_per_trial=_switch(path, entry, "process_per_trial"),
    )


def _only(entry: Any, known: set[str], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected keys and values, got {entry!r}.")
    unknown = sorted(set(map(str, entry)) - known)
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(unknown)}. Known: {', '.join(sorted(known))}."
        )


def _arm(name: str, entry: Any, plan: Plan, path: Path) -> Stage:
    """An arm as a stage: one of the experiment's with changes, or one of its own."""
    where = f"{path}: arm {name!r}"
    _only(entry, ARM_KEYS, where)
    own = {key: value for key, value in entry.items() if key not in ("stage", "space", "set")}
    base = Stage(name)
    source = entry.get("stage", None if {"fit", "call"} & set(own) else name)
    if source is not None:
        if source not in plan.stages:
            raise ConfigError(
                f"{where}: the experiment has no stage {source!r}. Stages: "
                f"{', '.join(plan.stages)}. Name one with 'stage', or give a 'fit'."
            )
        base = plan.stages[source]
    stage = Stage(name, overlay.merge(base.entry, own), [*base.settings, entry.get("set") or {}])
    if stage.entry.get("objective") and "objective" not in own:
        stage.entry["objective"] = name  # two arms of one stage are two curves
    check_stage(stage)
    return stage


def _dimensions(arm: str, entry: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[Dimension]:
    """The sweep's common dimensions and the arm's own, which go before them."""
    common, own = sweep.get("space") or {}, entry.get("space") or {}
    for where, space in (("space", common), (f"arm {arm!r}: space", own)):
        if not isinstance(space, Mapping):
            raise ConfigError(f"{where}: expected dotted keys and their values, got {space!r}.")
    names = {key: key for key in common} | {key: f"{arm}/{key}" for key in own}
    merged = {**common, **own}
    return [read_dimension(names[key], key, merged[key]) for key in names]


def _metrics(path: Path, entry: Any) -> dict[str, str]:
    if not isinstance(entry, Mapping) or not all(d in DIRECTIONS for d in entry.values()):
        raise ConfigError(
            f"{path}: metrics are names with maximize or minimize, as in {{reward: maximize, "
            f"kl: minimize}}, got {entry!r}."
        )
    return {str(name): direction for name, direction in entry.items()}


def _pruner(
    path: Path, entry: Mapping[str, Any], metrics: Mapping[str, str]
) -> tuple[str, dict[str, Any]] | None:
    if entry.get("pruner") is None:
        return None
    if len(metrics) > 1:
        raise ConfigError(
            f"{path}: a pruner compares trials by one metric, this sweep has {len(metrics)}. "
            "Use 'stop' (kl, dominated) instead."
        )
    return named(f"{path}: pruner", entry["pruner"], PRUNERS)


def _stop(path: Path, entry: Any) -> Stop:
    _only(entry, {"kl", "dominated"}, f"{path}: stop")
    kl = _positive(path, entry, "kl", (int, float))
    return Stop(kl, _positive(path, entry, "dominated", int))


def _switch(path: Path, entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: {key} is true or false, got {value!r}.")
    return value


def _positive(path: Path, entry: Mapping[str, Any], key: str, kind: Any) -> Any:
    value = entry.get(key)
    if value is not None and (not isinstance(value, kind) or value is True or value <= 0):
        raise ConfigError(f"{path}: {key} must be a number > 0, got {value!r}.")
    return value
