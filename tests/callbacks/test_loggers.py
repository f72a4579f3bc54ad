"""Sample completions in every logger that has tables or texts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alignlab.callbacks.loggers import (
    COLUMNS,
    LateRuns,
    as_markdown,
    end_runs,
    log_samples,
    log_settings,
    service_runs,
    take_up_runs,
)
from alignlab.results.csv_tables import read_table
from alignlab.results.run_folder import SampleText

ONE: dict[str, Any] = {"proxy_reward": None, "kl": 0.5, "length": 2}
SAMPLES = [
    SampleText(prompt_id="a", prompt="who", completion=" me\nand\u2028you", reward=1.0, **ONE),
    SampleText(prompt_id="a", prompt="who", completion="nobody", reward=0.0, **ONE),
    SampleText(prompt_id="b", prompt="x|y", completion="z", reward=-1.25, **ONE),
]
ROWS = [["who", " me\nand\u2028you", 1.0, 0.5, 2], ["x|y", "z", -1.25, 0.5, 2]]


def test_as_a_markdown_table() -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    assert as_markdown(rows).splitlines() == [
        "prompt → completion | reward | KL",
        "--- | --- | ---",
        "who → me and you | 1.000 | 0.500",
        "x\\|y → z | -1.250 | 0.500",
    ]


def test_as_files_and_texts(tmp_path: Path) -> None:
    log_samples(CSVLogger(tmp_path, name="", version="csv"), SAMPLES, 12)
    rows = read_table(tmp_path / "csv" / "probe" / "samples" / "000012.csv")
    assert [row["completion"] for row in rows] == [" me\nand\u2028you", "z"]
    assert float(rows[1]["reward"]) == -1.25
    board = TensorBoardLogger(tmp_path, name="", version="board")
    log_samples(board, SAMPLES, 12)
    board.save()
    tags = EventAccumulator(str(tmp_path / "board")).Reload().Tags()
    assert tags["tensors"] == ["probe/samples/text_summary"]


def test_as_tables_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their interfaces: neither package is installed here."""
    said: list[Any] = []
    monkeypatch.setattr(
        WandbLogger, "log_table", lambda _, *given, **named: said.append((given, named))
    )
    log_samples(object.__new__(WandbLogger), SAMPLES, 12)
    assert said.pop() == (("probe/samples", list(COLUMNS), ROWS), {"step": 12})
    client = SimpleNamespace(log_table=lambda *given: said.append(given))
    monkeypatch.setattr(MLFlowLogger, "experiment", client)
    monkeypatch.setattr(MLFlowLogger, "run_id", "r1")
    log_samples(object.__new__(MLFlowLogger), SAMPLES, 12)
    data = {name: [row[i] for row in ROWS] for i, name in enumerate(COLUMNS)}
    assert said.pop() == ("r1", data, "probe/samples/000012.json")


def wandb(run: str | None = None) -> WandbLogger:
    """As its constructor leaves it, which needs the package."""
    logger = object.__new__(WandbLogger)
    logger._wandb_init = {"id": run, "resume": "allow"}
    logger._id, logger._experiment = run, None
    return logger


def mlflow(run: str | None = None) -> MLFlowLogger:
    logger = object.__new__(MLFlowLogger)
    logger._run_id, logger._initialized = run, True
    logger._mlflow_client = SimpleNamespace()
    return logger


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither package is installed here: MLflow's client is the one in the logger."""
    monkeypatch.setattr(MLFlowLogger, "experiment", property(lambda self: self._mlflow_client))


@pytest.mark.usefixtures("service")
def test_services_go_on_with_their_runs(tmp_path: Path) -> None:
    opened = wandb()
    opened._experiment = SimpleNamespace(id="w7")
    board = TensorBoardLogger(tmp_path)
    known = service_runs([board, opened, mlflow("m5"), mlflow("m6")])
    assert known == {"WandbLogger": "w7", "MLFlowLogger": "m5"}
    assert service_runs([board, wandb(), mlflow()]) == {}
    later, others = wandb(), [mlflow(), mlflow()]
    take_up_runs([board, later, *others], known)
    assert later._wandb_init == {"id": "w7", "resume": "allow"}
    assert [logger.version for logger in (later, *others)] == ["w7", "m5", None]
    own = [wandb("mine"), mlflow("mine")]
    take_up_runs(own, known)
    assert [logger.version for logger in own] == ["mine", "mine"]
    take_up_runs(fresh := [wandb(), mlflow()], {})
    assert [logger.version for logger in fresh] == [None, None]


@pytest.mark.usefixtures("service")
def test_a_setting_that_mlflow_has_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, sent = mlflow("m5"), list[Any]()
    had = SimpleNamespace(data=SimpleNamespace(params={"trainer.max_steps": "2"}))
    logger._mlflow_client.get_run = {"m5": had}.__getitem__
    monkeypatch.setattr(MLFlowLogger, "log_hyperparams", lambda _, settings: sent.append(settings))
    log_settings(logger, {"trainer.max_steps": 3, "threads": 1})
    assert sent == [{"threads": 1}]


def test_the_next_training_of_a_process_has_a_run_of_its_own() -> None:
    ended = list[str]()
    opened = wandb()
    opened._experiment = SimpleNamespace(finish=lambda: ended.append("w7"))
    end_runs([opened, wandb(), mlflow("m5")])
    assert ended == ["w7"]


def test_which_loggers_wait_for_the_start(tmp_path: Path) -> None:
    """Not the first, which names the run's folder, and not one that copies TensorBoard."""
    board, copying = TensorBoardLogger(tmp_path), wandb()
    copying._wandb_init["sync_tensorboard"] = True
    trainer: Any = SimpleNamespace(loggers=[board, wandb(), copying, mlflow()])
    LateRuns({}).withhold(trainer)
    assert trainer.loggers == [board, copying]
    trainer.loggers = [alone := wandb(), board]
    LateRuns({}).withhold(trainer)
    assert trainer.loggers == [alone, board]
