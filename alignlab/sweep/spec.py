"""A sweep's YAML file: its keys, and its arms as stages of the experiment that it varies."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from pydantic import Field

from alignlab.errors import ConfigError
from alignlab.files import sha_of
from alignlab.plan import overlay
from alignlab.plan.content import by_content
from alignlab.plan.experiment import Job, Plan, Stage, check_names, expand, load_plan
from alignlab.plan.schema import (
    Changes,
    Count,
    FrontierArgs,
    Keys,
    Positive,
    Seeds,
    Text,
    check,
    key,
)
from alignlab.plan.space import (
    LISTED,
    DimensionKeys,
    Point,
    PrunerKeys,
    SamplerKeys,
    Space,
    design,
    space_of,
)
from alignlab.sweep.storage import check_url

BOUND = "alignlab.callbacks.kl_bound.KLBound"
# What a run reports at each evaluation; a pruner can use nothing else.
PROBED = ("kl", "kl_k1", "reward", "proxy_reward", "length", "seconds")
SpaceKeys = dict[Text, DimensionKeys] | None


class ArmKeys(Changes):
    """An arm: a stage of the experiment with changes, or one of its own."""

    stage: Text | None = key("The experiment's stage that is varied; unless given, the arm's name.")
    space: SpaceKeys = key("Dimensions of this arm alone.")


class StopKeys(Keys):
    """When a run ends early."""

    kl: Positive | None = key("At an evaluation beyond this KL, in nats per completion.")
    dominated: Count | None = key(
        "After this number of evaluations in a row at which a finished run has less "
        "KL and more reward."
    )


class SweepKeys(Keys):
    """A sweep: which stages of an experiment to vary, over which values, judged by what."""

    experiment: Text = Field(description="The experiment's folder; it makes the inputs.")
    scale: Text | None = key("Its scale, as in alignlab run.")
    seeds: Seeds | None = key("A trial is one run for each; the experiment's unless given.")
    arms: dict[Text, ArmKeys | None] = Field(min_length=1, description="Name -> what is varied.")
    space: SpaceKeys = key("Dotted key -> values, for every arm.")
    metrics: dict[Text, Literal["maximize", "minimize"]] = Field(
        min_length=1,
        description="What a trial is judged by: values after the last step, mean over seeds.",
    )
    sampler: SamplerKeys = Field(description="How points are chosen.")
    pruner: PrunerKeys | None = key("What ends a trial that is behind.")
    trials: Count | None = key(
        "The largest number of trials; a grid has all of its points unless given."
    )
    minutes: Positive | None = key("After this time no further trial is started.")
    storage: Text | None = key("URL of the study; unless given, a file beside the tables.")
    stop: StopKeys | None = None
    frontier: FrontierArgs | None = key("As frontier.args of an experiment.")
    process_per_trial: bool = Field(
        default=False, description="A new process for each run, instead of one for many."
    )


@dataclass(frozen=True)
class Sweep:
    """The space, the sampler and the metrics.

    Args:
        keys: What the file says.
        inputs: The plan of the experiment, whose stages the trials read.
        plan: The sweep's own, with another name and another results folder.
        stages: The arms as stages.
        space: What is varied.
        points: Those of a design that is known beforehand; ``None`` if the sampler chooses each
            point by the results so far.
    """

    keys: SweepKeys
    inputs: Plan
    plan: Plan
    stages: dict[str, Stage]
    space: Space
    points: list[Point] | None

    @property
    def stop(self) -> StopKeys:
        """When a run ends early."""
        return self.keys.stop or StopKeys()

    @property
    def definition(self) -> str:
        """Hash of everything that trials must share to be comparable."""
        if self.points is not None:
            what: Any = [self.space.params(point) for point in self.points]
        else:
            dimensions = {arm: list(map(repr, ds)) for arm, ds in self.space.arms.items()}
            what = [self.keys.sampler, dimensions]
        middles = {arm: self.jobs(self.space.middle(arm)) for arm in self.stages}
        arms = {arm: [job.config_sha for job in jobs] for arm, jobs in middles.items()}
        stop = [self.stop.kl, self.stop.dominated, self.keys.pruner]
        return sha_of([arms, what, self.keys.metrics, stop])

    def jobs(self, point: Point) -> list[Job]:
        """The point's runs, one for each seed: its arm's stage with a grid of one point.

        Raises:
            ConfigError: A key that the config cannot take.
        """
        stage, plan = self.stages[point.arm], self.plan
        entry = {**stage.entry, "grid": [point.values], "per_seed": True, "tune": None}
        jobs = expand(replace(stage, entry=entry), plan.experiment, plan.jobs, plan.seeds)
        return [self._with_bound(job) for job in jobs]

    def _with_bound(self, job: Job) -> Job:
        if self.stop.kl is None:
            return job
        bound = {"class_path": BOUND, "init_args": {"limit": self.stop.kl}}
        config, sha = job.spec["config"], sha_of([job.config_sha, by_content(bound)])
        trainer = config.get("trainer") or {}
        trainer = {**trainer, "callbacks": [*(trainer.get("callbacks") or []), bound]}
        return replace(job, spec={"config": {**config, "trainer": trainer}}, config_sha=sha)

    def to_check(self) -> dict[str, Any]:
        """The runs to check: one for each choice of a key, or for both ends of its range."""
        return {name: self.plan.to_check(self.jobs(point)[0]) for name, point in self.probed()}

    def probed(self) -> list[tuple[str, Point]]:
        """Each arm's middle point with one value changed, named by that value; no repeats."""
        found = []
        for arm, dimensions in self.space.arms.items():
            start = self.space.middle(arm)
            for place, d in enumerate(dimensions):
                for value in d.ends()[place > 0 :]:  # the first is the middle's, which was there
                    point = Point(arm, {**start.values, d.key: value})
                    found.append((f"arm {arm}, {d.key}: {value}", point))
            if not dimensions:
                found.append((f"arm {arm}", start))
        return found

    @property
    def needs(self) -> list[str]:
        """Jobs of the experiment whose output the trials and the closing evaluation read."""
        some = [job for arm in self.stages for job in self.jobs(self.space.middle(arm))]
        read = [name for job in some for names in job.needs.values() for name in names]
        return list(dict.fromkeys([*read, *self.plan.frontier_needs]))


def load_sweep(path: Path, results: Path | None = None) -> Sweep:
    """Read a sweep's YAML and the experiment that it names.

    Args:
        path: The file.
        results: The folder of the sweep's runs; default ``results/sweep-<name>``.

    Raises:
        ConfigError: An unreadable file, an unknown key, or an impossible value.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = check(SweepKeys, overlay.read_yaml(path), str(path))
    _check_together(keys, str(path))
    inputs = load_plan(Path(keys.experiment), scale=keys.scale, seeds=keys.seeds)
    name = f"sweep-{path.stem}"
    own = {} if keys.frontier is None else keys.frontier.model_dump(exclude_unset=True)
    arms = {arm: (entry and entry.space) or {} for arm, entry in keys.arms.items()}
    space = space_of(keys.space or {}, arms)
    points = design(keys.sampler, space, keys.trials)
    sweep = Sweep(
        keys=keys,
        inputs=inputs,
        plan=replace(
            inputs,
            name=name,
            results=results or Path("results") / name,
            frontier=inputs.frontier | own,
            inputs=inputs.results,
        ),
        stages={arm: _stage(arm, keys, inputs, f"{path}: arm {arm!r}") for arm in keys.arms},
        space=space,
        points=points,
    )
    points = points or [point for _, point in sweep.probed()]  # as far as they are known
    for arm in sweep.stages:
        own_points = [point.values for point in points if point.arm == arm]
        check_names(arm, own_points, f"{path}: arm {arm!r}")
    return sweep


def _check_together(keys: SweepKeys, where: str) -> None:
    """Refuse keys that exclude each other, and a metric that no run can have.

    A metric with a slash, such as ``val/loss``, can be checked only after the first run.
    """
    (name, _), metrics = keys.sampler, list(keys.metrics)
    endless = keys.trials is None and (keys.minutes is None or name in LISTED)
    if endless and name != "grid":
        raise ConfigError(f"{where}: sampler {name} needs 'trials', the number of them.")
    if keys.pruner is not None and len(metrics) > 1:
        raise ConfigError(
            f"{where}: a pruner compares trials by one metric, this sweep has {len(metrics)}. "
            "Use 'stop' (kl, dominated) instead."
        )
    if keys.pruner is not None and metrics[0] not in PROBED:
        raise ConfigError(
            f"{where}: a pruner needs a metric that each evaluation reports, got {metrics[0]!r}. "
            f"Take one of {', '.join(PROBED)}, or leave the pruner out."
        )
    for metric in metrics:
        if "/" not in metric and metric not in PROBED:
            near = difflib.get_close_matches(metric, PROBED, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{where}: metric {metric!r} is not measured by any run. An evaluation has "
                f"{', '.join(PROBED)}; logged metrics have a slash, as val/loss does.{hint}"
            )
    if keys.storage is not None:
        check_url(keys.storage)


def _stage(arm: str, keys: SweepKeys, inputs: Plan, where: str) -> Stage:
    """An arm as a stage: one of the experiment's with changes, or one of its own."""
    entry = keys.arms[arm]
    own = {} if entry is None else entry.model_dump(exclude_unset=True, exclude={"space"})
    source = own.pop("stage", None if {"fit", "call"} & own.keys() else arm)
    if source is not None and source not in inputs.stages:
        raise ConfigError(
            f"{where}: the experiment has no stage {source!r}. Stages: "
            f"{', '.join(inputs.stages)}. Name one with 'stage', or give a 'fit'."
        )
    base = Stage(arm) if source is None else replace(inputs.stages[source], name=arm)
    stage = base.changed(own)
    if stage.entry.get("objective") and "objective" not in own:
        stage.entry["objective"] = arm  # two arms of one stage are two curves
    stage.check()
    for name in ("stop", "pruner"):
        if "call" in stage.entry and getattr(keys, name) is not None:
            raise ConfigError(f"{where}: {name!r} is for stages that train; this is a call.")
    return stage
