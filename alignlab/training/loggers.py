"""Loggers by a word: ``trainer.logger: csv``, ``wandb`` or ``mlflow`` instead of a class."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from alignlab.errors import ConfigError

Word = Literal["tensorboard", "csv", "wandb", "mlflow"]
PROJECT = "alignlab"  # of W&B, and experiment of MLflow


class WithWords(Trainer):
    """A trainer whose ``logger`` may also be a word; ``loggers_of`` replaces it."""

    def __init__(
        self,
        *args: Any,
        logger: Word | Logger | Iterable[Logger] | bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)


def loggers_of(given: Any, root: Path) -> Any:
    """What a trainer takes for ``trainer.logger``: a word becomes its loggers.

    Args:
        given: The setting.
        root: ``trainer.default_root_dir``.

    Raises:
        ConfigError: The word's package is not installed.
    """
    if not isinstance(given, str):
        return given
    place: dict[str, Any] = {"save_dir": str(root), "name": "lightning_logs", "version": None}
    run = f"{root.resolve().name}/{Path(TensorBoardLogger(**place).log_dir).name}"
    try:
        return [kind(**settings) for kind, settings in _loggers(given, place, run)]
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"trainer.logger {given}: its package is not installed ({error}). Install it: "
            f"pip install 'alignlab[{given}]'"
        ) from error


def specs_of(given: Any, folder: Path) -> Any:
    """``trainer.logger`` where logs go into ``folder`` itself: a word becomes class paths."""
    if given not in get_args(Word):
        return given
    place = {"save_dir": str(folder), "name": "", "version": ""}
    run = f"{folder.parent.parent.name}-{folder.parent.name}"  # stage and key
    return [
        {"class_path": f"lightning.pytorch.loggers.{kind.__name__}", "init_args": settings}
        for kind, settings in _loggers(given, place, run)
    ]


def _loggers(
    word: str, place: Mapping[str, Any], run: str
) -> list[tuple[type[Logger], dict[str, Any]]]:
    """Classes and settings; the first one's folder is the run's."""
    first: type[Logger] = CSVLogger if word == "csv" else TensorBoardLogger
    found: list[tuple[type[Logger], dict[str, Any]]] = [(first, dict(place))]
    root = Path(place["save_dir"]).resolve()
    if word == "wandb":
        found.append((WandbLogger, {"project": PROJECT, "name": run, "save_dir": str(root)}))
    if word == "mlflow":
        server = os.environ.get("MLFLOW_TRACKING_URI")
        settings = {"experiment_name": PROJECT, "run_name": run}
        settings["tracking_uri"] = server or f"sqlite:///{root}/mlflow.db"
        settings |= {} if server else {"artifact_location": f"file:{root}/mlruns"}
        found.append((MLFlowLogger, settings))
    return found
