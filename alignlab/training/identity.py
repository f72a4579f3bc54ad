"""The identity of a checkpoint's config: the settings that shape the weights.

Model, data and seed shape every step, and so do a few of the trainer's settings and callbacks. The
length of the run, its logging and its number of threads may change when it is continued; the new
values then apply.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import canonical
from alignlab.names import recorded
from alignlab.plan.content import WRITTEN, by_content

SHAPING = (
    "precision",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
    "sync_batchnorm",
    "reload_dataloaders_every_n_epochs",
    "plugins",
)
OBJECTIVE = "model.class_path"
OWN, LIGHTNING = "alignlab.callbacks.", "lightning."
LOOKING_ON = {  # Lightning's callbacks that change no weight and take no setting from a checkpoint
    *("DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
    *("OnExceptionCheckpoint", "RichModelSummary", "RichProgressBar", "ThroughputMonitor"),
    *("Timer", "TQDMProgressBar"),
}
SHOWN = 60  # characters of a value in a message

Identity = dict[str, list[str]]  # dotted key -> what counts of its value, and the value to be read


class OtherConfig(ConfigError):
    """A checkpoint belongs to another config."""


def identity_of(config: Mapping[str, Any]) -> Identity:
    """All settings that shape the weights; files, folders and a user's code by their content.

    Args:
        config: A stage's config with all defaults, as plain values.
    """
    trainer = config.get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    changing = [each for each in callbacks if not _looks_on(str(each.get("class_path", "")))]
    kept = {key: config.get(key) for key in ("seed_everything", "model", "data")}
    kept["trainer"] = {key: trainer.get(key) for key in SHAPING} | {"callbacks": changing}
    return {
        key: [canonical(by_content(value)), canonical(value)] for key, value in _leaves(kept, "")
    }


def check_same(before: Identity, now: Identity, checkpoint: Path) -> None:
    """Refuse to continue a run with another config.

    Args:
        before: Identity that the checkpoint holds.
        now: Identity of the run that is to continue it.
        checkpoint: Its path, for the message.

    Raises:
        OtherConfig: They differ; names each key with both values.
    """
    keys = dict.fromkeys([*before, *now])
    unset = [canonical(None)] * 2
    pairs = {key: (before.get(key, unset), now.get(key, unset)) for key in keys}
    changed = [f"{key} {_shown(*pair)}" for key, pair in pairs.items() if pair[0][0] != pair[1][0]]
    if changed:
        raise OtherConfig(
            f"{checkpoint} is of another config: {', '.join(changed)}. Continue with the run's "
            "original values, or start again without a checkpoint."
        )


def check_objective(before: Identity, class_path: str, checkpoint: Path) -> None:
    """Refuse weights that another objective trained; all else may differ where none are trained.

    Args:
        before: Identity that the checkpoint holds.
        class_path: The objective of the config.
        checkpoint: Its path, for the message.

    Raises:
        OtherConfig: They differ; names both.
    """
    was = json.loads(before[OBJECTIVE][1])
    if recorded(was) != recorded(class_path):
        raise OtherConfig(
            f"{checkpoint} was trained with {was}, and model.class_path is {class_path}. Give the "
            "config that it was trained with, or a checkpoint of this objective."
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}.{number}")
    elif key.rpartition(".")[2] not in WRITTEN:
        yield key, value


def _looks_on(class_path: str) -> bool:
    name = class_path.rpartition(".")[2]
    return class_path.startswith(OWN) or (class_path.startswith(LIGHTNING) and name in LOOKING_ON)


def _shown(before: list[str], now: list[str]) -> str:
    if before[1] == now[1]:
        return f"{_short(now[1])} with another content"
    return f"{_short(before[1])} -> {_short(now[1])}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
