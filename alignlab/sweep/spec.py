"""A sweep's YAML, read and checked against the experiment that it varies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from alignlab.errors import ConfigError
from alignlab.files import sha_of
from alignlab.plan import overlay
from alignlab.plan.content import by_content
from alignlab.plan.experiment import (
    STAGE_KEYS,
    Job,
    Plan,
    Stage,
    check_frontier,
    check_names,
    check_stage,
    expand,
    load_plan,
)
from alignlab.plan.keys import (
    ANY,
    COUNT,
    MAPPING,
    POSITIVE,
    SEEDS,
    SWITCH,
    TEXT,
    Kind,
    checked,
)
from alignlab.sweep.samplers import (
    LISTED,
    PRUNERS,
    SAMPLERS,
    build_pruner,
    build_sampler,
    design,
    named,
    try_out,
)
from alignlab.sweep.space import Dimension, Point, Space, read_dimension
from alignlab.sweep.storage import check_url

DIRECTIONS = ("maximize", "minimize")
METRICS = Kind(
    "names with maximize or minimize, as in {reward: maximize, kl: minimize}",
    lambda value: MAPPING.fits(value) and all(d in DIRECTIONS for d in value.values()),
)
KEYS = {
    "experiment": TEXT,
    "scale": TEXT,
    "seeds": SEEDS,
    "arms": MAPPING,
    "space": MAPPING,
    "metrics": METRICS,
    "sampler": ANY,
    "pruner": ANY,
    "trials": COUNT,
    "minutes": POSITIVE,
    "storage": TEXT,
    "stop": MAPPING,
    "frontier": MAPPING,
    "process_per_trial": SWITCH,
}
NEEDED = ("experiment", "arms", "metrics", "sampler")
STOP_KEYS = {"kl": POSITIVE, "dominated": COUNT}
ARM_KEYS = {"stage": TEXT, "space": MAPPING} | {
    key: kind for key, kind in STAGE_KEYS.items() if key not in ("grid", "per_seed")
}
BOUND = "alignlab.callbacks.kl_bound.KLBound"
# What a run reports at each evaluation: all that a pruner can judge it by.
PROBED = ("kl", "kl_k1", "reward", "proxy_reward", "length", "seconds")


@dataclass(frozen=True)
class Stop:
    """When a run ends early.

    Args:
        kl: At an evaluation beyond this KL, in nats per completion.
        dominated: After this number of evaluations in a row at which a finished run has less KL and
            more reward.
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
        config = overlay.merge(job.spec["config"], {})
        trainer = overlay.merge(config.get("trainer") or {}, {})
        bound = {"class_path": BOUND, "init_args": {"limit": self.stop.kl}}
        config["trainer"] = {**trainer, "callbacks": [*(trainer.get("callbacks") or []), bound]}
        sha = sha_of([job.config_sha, by_content(bound)])
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
        return {name: self.jobs(point)[0] for name, point in self._probed()}

    def check_names(self, where: str) -> None:
        """Refuse points that would share a run's name, as far as they are known beforehand.

        Raises:
            ConfigError: Two points share a run name.
        """
        points = self.points
        if points is None:
            points = [point for _, point in self._probed()]
        for arm in self.stages:
            own = [point.values for point in points if point.arm == arm]
            check_names(arm, own, f"{where}: arm {arm!r}")

    def _probed(self) -> list[tuple[str, Point]]:
        """Each arm's middle with one value changed, named for it; every such point once."""
        found = []
        for arm, dimensions in self.space.arms.items():
            start = self.middle(arm)
            for place, d in enumerate(dimensions):
                for value in d.ends()[place > 0 :]:  # the first is the middle's, which was there
                    point = Point(arm, {**start.values, d.key: value})
                    found.append((f"arm {arm}, {d.key}: {value}", point))
            if not dimensions:
                found.append((f"arm {arm}", start))
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
        return sha_of([arms, what, self.metrics, stop])


def load_sweep(path: Path) -> Sweep:
    """Read a sweep's YAML and the experiment that it names.

    Raises:
        ConfigError: A file that cannot be read, an unknown key, a value that cannot be.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = str(path)
    entry = checked(overlay.read_yaml(path), KEYS, where, needed=NEEDED)
    plan = load_plan(Path(entry["experiment"]), scale=entry.get("scale"), seeds=entry.get("seeds"))
    arms = {
        name: checked({} if arm is None else arm, ARM_KEYS, f"{where}: arm {name!r}")
        for name, arm in entry["arms"].items()
    }
    space = Space({name: _dimensions(name, arm, entry) for name, arm in arms.items()})
    sampler, seed = _sampler(where, entry)
    frontier = plan.frontier | (entry.get("frontier") or {})
    check_frontier(frontier, f"{where}: frontier")
    storage = entry.get("storage")
    if storage is not None:
        check_url(storage)
    sweep = Sweep(
        name=f"sweep-{path.stem}",
        plan=plan,
        stages={name: _arm(name, arm, plan, where) for name, arm in arms.items()},
        space=space,
        metrics=entry["metrics"],
        sampler=sampler,
        pruner=_pruner(where, entry),
        trials=entry.get("trials"),
        minutes=entry.get("minutes"),
        storage=storage,
        stop=Stop(**checked(entry.get("stop") or {}, STOP_KEYS, f"{where}: stop")),
        points=design(*sampler, space, entry.get("trials"), seed),
        frontier=frontier,
        process_per_trial=bool(entry.get("process_per_trial")),
    )
    _check_stops(where, sweep)
    sweep.check_names(where)
    return sweep


def _arm(name: str, entry: Mapping[str, Any], plan: Plan, path: str) -> Stage:
    """An arm as a stage: one of the experiment's with changes, or one of its own."""
    where = f"{path}: arm {name!r}"
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
    settings = entry.get("set") or {}
    stage = Stage(name, overlay.merge(base.entry, own), [*base.settings, settings])
    if stage.entry.get("objective") and "objective" not in own:
        stage.entry["objective"] = name  # two arms of one stage are two curves
    check_stage(stage)
    if settings and "call" in stage.entry:
        raise ConfigError(f"{where}: 'set' is for a stage that trains; a call takes 'args'.")
    return stage


def _dimensions(arm: str, entry: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[Dimension]:
    """The sweep's common dimensions and the arm's own, which go before them."""
    common, own = sweep.get("space") or {}, entry.get("space") or {}
    names = {key: key for key in common} | {key: f"{arm}/{key}" for key in own}
    merged = {**common, **own}
    return [read_dimension(names[key], key, merged[key]) for key in names]


def _sampler(where: str, entry: Mapping[str, Any]) -> tuple[tuple[str, dict[str, Any]], int]:
    """Name and settings, and its seed."""
    name, settings = named(f"{where}: sampler", entry["sampler"], {"grid": None, **SAMPLERS})
    seed = settings.get("seed", 0)
    if name != "grid":
        try_out(f"{where}: sampler {name}", lambda: build_sampler(name, settings, seed))
        endless = entry.get("trials") is None
        if endless and (entry.get("minutes") is None or name in LISTED):
            raise ConfigError(f"{where}: sampler {name} needs 'trials', the number of them.")
    return (name, settings), seed


def _pruner(where: str, entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    if entry.get("pruner") is None:
        return None
    name, settings = named(f"{where}: pruner", entry["pruner"], PRUNERS)
    try_out(f"{where}: pruner {name}", lambda: build_pruner(name, settings))
    metrics = list(entry["metrics"])
    if len(metrics) > 1:
        raise ConfigError(
            f"{where}: a pruner compares trials by one metric, this sweep has {len(metrics)}. "
            "Use 'stop' (kl, dominated) instead."
        )
    if metrics[0] not in PROBED:
        raise ConfigError(
            f"{where}: a pruner judges by what each evaluation reports, which {metrics[0]!r} is "
            f"not part of. Take one of {', '.join(PROBED)} as the metric, or leave the pruner out."
        )
    return name, settings


def _check_stops(where: str, sweep: Sweep) -> None:
    """Only a stage that trains is evaluated on its way and can end early."""
    asked = {"stop": sweep.stop != Stop(), "pruner": sweep.pruner is not None}
    for name, stage in sweep.stages.items():
        for key in [key for key, is_asked in asked.items() if is_asked and "call" in stage.entry]:
            raise ConfigError(
                f"{where}: arm {name!r}: {key!r} is for stages that train; this is a call."
            )
