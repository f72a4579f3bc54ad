"""A word for a logger, in a run of its own and in a stage of an experiment."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from alignlab.errors import ConfigError
from alignlab.training import loggers
from alignlab.training.loggers import loggers_of, specs_of


def test_a_word_gives_the_run_its_folder(tmp_path: Path) -> None:
    (own,) = loggers_of("csv", tmp_path)
    assert isinstance(own, CSVLogger)
    assert Path(own.log_dir) == tmp_path / "lightning_logs" / "version_0"
    (own,) = loggers_of("tensorboard", tmp_path)
    assert isinstance(own, TensorBoardLogger)
    for other in (None, True, False, [own]):
        assert loggers_of(other, tmp_path) is other


@pytest.mark.parametrize(
    ("word", "kind", "settings"),
    [
        ("wandb", "WandbLogger", {"project": "alignlab", "name": "dpo-s0"}),
        ("mlflow", "MLFlowLogger", {"experiment_name": "alignlab", "run_name": "dpo-s0"}),
    ],
)
def test_services_come_after_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, kind: str, settings: Any
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "dpo" / "s0" / "train"
    first, second = specs_of(word, folder)
    assert first["class_path"].endswith(".TensorBoardLogger")
    assert first["init_args"] == {"save_dir": str(folder), "name": "", "version": ""}
    assert second["class_path"] == f"lightning.pytorch.loggers.{kind}"
    assert settings.items() <= second["init_args"].items()
    assert str(folder) in str(second["init_args"])
    if word == "mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
        found = specs_of(word, folder)[1]["init_args"]
        assert found["tracking_uri"] == "http://there:5000"
        assert "artifact_location" not in found
    given = {"class_path": "mine.Logger"}
    assert specs_of(given, folder) is given


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(**_: Any) -> None:
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr(loggers, "WandbLogger", missing)
    with pytest.raises(ConfigError, match=r"wandb: .* pip install 'alignlab\[wandb\]'"):
        loggers_of("wandb", tmp_path)
