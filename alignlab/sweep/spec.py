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
from alignlab.plan.experiment import Plan, load_plan
from alignlab.plan.jobs import Job, check_names, expand
from alignlab.plan.layers import Stage
from alignlab.sweep import schema
from alignlab.sweep.samplers import design, named
from alignlab.sweep.schema import PROBED as PROBED
from alignlab.sweep.schema import StopKeys, SweepKeys
from alignlab.sweep.space import Dimension, Point, Space
from alignlab.sweep.storage import check_url

BOUND = "alignlab.callbacks.kl_bound.KLBound"


@dataclass(frozen=True)
class Sweep:
    """What to try, how to choose it and how to judge it.

    Args:
        name: ``sweep-`` and the name of its file.
        keys: What the file says.
        plan: The experiment's stages for the sweep's seeds; its results folder holds the inputs.
        stages: The arms as stages.
        space: What is varied.
        sampler: Name and settings.
        pruner: Name and settings, or ``None``.
        stop: When a run ends early.
        points: Those of a design that is known beforehand; ``None`` where the sampler goes by the
            results.
        frontier: Settings of the closing evaluation.
    """

    name: str
    keys: SweepKeys
    plan: Plan
    stages: dict[str, Stage]
    space: Space
    sampler: tuple[str, dict[str, Any]]
    pruner: tuple[str, dict[str, Any]] | None
    stop: StopKeys
    points: list[Point] | None
    frontier: dict[str, Any]

    def jobs(self, point: Point) -> list[Job]:
        """The point's runs, one for each seed.

        Raises:
            ConfigError: A key that runs into a value of the config.
        """
        plan = self.plan
        stage = self.stages[point.arm]
        entry = {**stage.entry, "grid": [point.values], "per_seed": True}
        jobs = expand(replace(stage, entry=entry), plan.experiment, plan.jobs, plan.seeds)
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
        return {name: self.jobs(point)[0] for name, point in self.probed()}

    def probed(self) -> list[tuple[str, Point]]:
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
        return sha_of([arms, what, self.keys.metrics, stop])


def load_sweep(path: Path) -> Sweep:
    """Read a sweep's YAML and the experiment that it names.

    Raises:
        ConfigError: A file that cannot be read, an unknown key, a value that cannot be.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where = str(path)
    content = overlay.read_yaml(path)
    keys = schema.read(content, where)
    plan = load_plan(Path(keys.experiment), scale=keys.scale, seeds=keys.seeds)
    space = _space(keys)
    sampler = named(keys.sampler)
    if keys.storage is not None:
        check_url(keys.storage)
    sweep = Sweep(
        name=f"sweep-{path.stem}",
        keys=keys,
        plan=plan,
        stages={
            name: _arm(name, arm or {}, plan, f"{where}: arm {name!r}")
            for name, arm in content["arms"].items()
        },
        space=space,
        sampler=sampler,
        pruner=None if keys.pruner is None else named(keys.pruner),
        stop=keys.stop or StopKeys(),
        points=design(*sampler, space, keys.trials),
        frontier=plan.frontier | (content.get("frontier") or {}),
    )
    for name in sweep.stages:
        _check_arm(sweep, name, f"{where}: arm {name!r}")
    return sweep


def _check_arm(sweep: Sweep, name: str, where: str) -> None:
    """Refuse what only a stage that trains can have, and points that would share a run's name."""
    for key in ("stop", "pruner"):
        if "call" in sweep.stages[name].entry and getattr(sweep.keys, key) is not None:
            raise ConfigError(f"{where}: {key!r} is for stages that train; this is a call.")
    points = sweep.points or [point for _, point in sweep.probed()]  # as far as they are known
    check_names(name, [point.values for point in points if point.arm == name], where)


def _space(keys: SweepKeys) -> Space:
    """The dimensions of each arm: the sweep's common ones and its own, which replace them."""
    arms = {}
    for arm, entry in keys.arms.items():
        own = {} if entry is None else entry.space or {}
        merged = {**(keys.space or {}), **own}
        names = {key: f"{arm}/{key}" if key in own else key for key in merged}
        arms[arm] = [Dimension(names[key], key, merged[key].distribution()) for key in merged]
    return Space(arms)


def _arm(name: str, entry: Mapping[str, Any], plan: Plan, where: str) -> Stage:
    """An arm as a stage: one of the experiment's with changes, or one of its own."""
    own = {key: value for key, value in entry.items() if key not in ("stage", "space")}
    source = entry.get("stage", None if {"fit", "call"} & set(own) else name)
    if source is not None and source not in plan.stages:
        raise ConfigError(
            f"{where}: the experiment has no stage {source!r}. Stages: "
            f"{', '.join(plan.stages)}. Name one with 'stage', or give a 'fit'."
        )
    base = Stage(name) if source is None else replace(plan.stages[source], name=name)
    stage = base.changed(own)
    if stage.entry.get("objective") and "objective" not in own:
        stage.entry["objective"] = name  # two arms of one stage are two curves
    stage.check()
    return stage
