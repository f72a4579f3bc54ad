"""Sample completions in every logger that has tables or texts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from alignlab.callbacks.loggers import COLUMNS, as_markdown, log_samples
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
