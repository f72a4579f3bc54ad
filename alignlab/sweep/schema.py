"""The keys of a sweep's YAML file, and what of it makes no sense together."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from alignlab.errors import ConfigError, in_a_line
from alignlab.plan.schema import (
    Changes,
    Count,
    FrontierArgs,
    Keys,
    Positive,
    Seeds,
    Text,
    check,
)
from alignlab.sweep.samplers import (
    LISTED,
    PrunerKeys,
    SamplerKeys,
    build_pruner,
    build_sampler,
    named,
)
from alignlab.sweep.space import DimensionKeys

# What a run reports at each evaluation: all that a pruner can judge it by.
PROBED = ("kl", "kl_k1", "reward", "proxy_reward", "length", "seconds")
SpaceKeys = dict[Text, DimensionKeys] | None


class ArmKeys(Changes):
    """An arm: a stage of the experiment with changes, or one of its own."""

    stage: Text | None = Field(
        default=None,
        description="The experiment's stage that is varied; unless given, the arm's name.",
    )
    space: SpaceKeys = Field(default=None, description="Dimensions of this arm alone.")


class StopKeys(Keys):
    """When a run ends early."""

    kl: Positive | None = Field(
        default=None, description="At an evaluation beyond this KL, in nats per completion."
    )
    dominated: Count | None = Field(
        default=None,
        description="After this number of evaluations in a row at which a finished run has less "
        "KL and more reward.",
    )


class SweepKeys(Keys):
    """A sweep: which stages of an experiment to vary, over which values, judged by what."""

    experiment: Text = Field(description="The experiment's folder; it makes the inputs.")
    scale: Text | None = Field(default=None, description="Its scale, as in alignlab run.")
    seeds: Seeds | None = Field(
        default=None, description="A trial is one run for each; the experiment's unless given."
    )
    arms: dict[Text, ArmKeys | None] = Field(min_length=1, description="Name -> what is varied.")
    space: SpaceKeys = Field(default=None, description="Dotted key -> values, for every arm.")
    metrics: dict[Text, Literal["maximize", "minimize"]] = Field(
        min_length=1,
        description="What a trial is judged by: values after the last step, mean over seeds.",
    )
    sampler: SamplerKeys = Field(description="How points are chosen.")
    pruner: PrunerKeys | None = Field(default=None, description="What ends a trial that is behind.")
    trials: Count | None = Field(
        default=None,
        description="The largest number of trials; a grid has all of its points unless given.",
    )
    minutes: Positive | None = Field(
        default=None, description="After this time no further trial is started."
    )
    storage: Text | None = Field(
        default=None, description="URL of the study; unless given, a file beside the tables."
    )
    stop: StopKeys | None = None
    frontier: FrontierArgs | None = Field(
        default=None, description="As frontier.args of an experiment."
    )
    process_per_trial: bool | None = Field(
        default=None, description="A new process for each run, instead of one for many."
    )


def read(content: Any, where: str) -> SweepKeys:
    """The content of a sweep's file, checked as far as that is possible without the experiment.

    Raises:
        ConfigError: An unknown key, a value of the wrong type, a sampler or pruner that cannot be.
    """
    keys = check(SweepKeys, content, where)
    name, settings = named(keys.sampler)
    if name != "grid":
        _try_out(f"{where}: sampler {name}", lambda: build_sampler(name, settings, 0))
        if keys.trials is None and (keys.minutes is None or name in LISTED):
            raise ConfigError(f"{where}: sampler {name} needs 'trials', the number of them.")
    if keys.pruner is not None:
        pruner = named(keys.pruner)
        _try_out(f"{where}: pruner {pruner[0]}", lambda: build_pruner(*pruner))
        _check_pruned(list(keys.metrics), where)
    return keys


def _try_out(where: str, build: Callable[[], Any]) -> None:
    """Call ``build`` now, so that a setting that the class refuses stops before anything exists."""
    try:
        build()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {in_a_line(error)}") from None


def _check_pruned(metrics: list[str], where: str) -> None:
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
