"""The keys of a sweep's YAML file, and what of it makes no sense together."""

from typing import Any, Literal

from pydantic import Field

from alignlab.errors import ConfigError
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
from alignlab.sweep.samplers import LISTED, PrunerKeys, SamplerKeys, named
from alignlab.sweep.space import DimensionKeys

# What a run reports at each evaluation: all that a pruner can judge it by.
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


def read(content: Any, where: str) -> SweepKeys:
    """The content of a sweep's file, checked as far as that is possible without the experiment.

    Raises:
        ConfigError: An unknown key, a value of the wrong type, a sampler or pruner that cannot be.
    """
    keys = check(SweepKeys, content, where)
    name, _ = named(keys.sampler)
    endless = keys.trials is None and (keys.minutes is None or name in LISTED)
    if endless and name != "grid":
        raise ConfigError(f"{where}: sampler {name} needs 'trials', the number of them.")
    metrics = list(keys.metrics)
    if keys.pruner is not None and len(metrics) > 1:
        raise ConfigError(
            f"{where}: a pruner compares trials by one metric, this sweep has {len(metrics)}. "
            "Use 'stop' (kl, dominated) instead."
        )
    if keys.pruner is not None and metrics[0] not in PROBED:
        raise ConfigError(
            f"{where}: a pruner judges by what each evaluation reports, which {metrics[0]!r} is "
            f"not part of. Take one of {', '.join(PROBED)} as the metric, or leave the pruner out."
        )
    return keys
