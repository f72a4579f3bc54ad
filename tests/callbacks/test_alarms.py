"""Each kind of alarm once, with what it saw; a continued run does not repeat it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.callbacks import alarms
from alignlab.callbacks.alarms import TABLE, Alarms
from alignlab.callbacks.probe import FrontierProbe
from alignlab.errors import ConfigError
from alignlab.results.csv_tables import read_table

HEALTHY = {"kl": 1.0, "length": 20.0, "entropy": 2.0}


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(alarms, "run_folder", lambda trainer: tmp_path)

    def at(callback: Alarms, step: int, **changed: float) -> None:
        trainer: Any = SimpleNamespace(global_step=step, is_global_zero=True)
        module: Any = SimpleNamespace(
            phase=HEALTHY | changed, sampling=SimpleNamespace(max_new_tokens=50)
        )
        callback.on_train_batch_start(trainer, module)

    return at


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"kl": 51.0}, "kl", "the KL of the rollouts is 51 nats per completion, above 50"),
        ({"kl": float("nan")}, "kl", "is nan nats"),
        ({"length": 49.5}, "length", "have 49.5 tokens on average, of at most 50: few end"),
        ({"length": 40.0}, "length", "have 40 tokens on average, at first 20. Read samples"),
        ({"length": 10.0}, "length", "have 10 tokens on average, at first 20. Read samples"),
        ({"entropy": 0.19}, "entropy", "is 0.19 nats a token, at first 2: samples hardly differ"),
    ],
)
def test_each_kind_once(look, tmp_path, capsys, changed, kind, said):
    callback = Alarms()
    look(callback, 0)
    look(callback, 4, kl=49.0, length=39.0, entropy=0.21)
    look(callback, 5, length=11.0)
    assert capsys.readouterr().err == ""
    look(callback, 8, **changed)
    look(callback, 12, **changed)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("alarm at step 8: ")
    assert said in lines[0]
    row = read_table(tmp_path / TABLE)[0]
    assert (row["step"], row["kind"]) == ("8", kind)
    assert said in row["message"]
    again = Alarms()
    again.load_state_dict(callback.state_dict())
    look(again, 16, **changed)
    assert capsys.readouterr().err == ""


def test_lengths_that_are_at_the_limit_from_the_start_are_meant(look, capsys):
    callback = Alarms()
    look(callback, 0, length=50.0)
    look(callback, 4, length=50.0)
    assert capsys.readouterr().err == ""


def test_a_probe_is_looked_at_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(alarms, "run_folder", lambda trainer: tmp_path)
    monkeypatch.setattr(alarms, "means_at", lambda trainer, step: {"kl": 3.0, "length": 5.0})
    probe = object.__new__(FrontierProbe)
    probe.max_new_tokens = 8
    trainer: Any = SimpleNamespace(global_step=7, is_global_zero=True, callbacks=[probe])
    Alarms(kl=2.0).on_train_batch_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert "alarm at step 7: the KL of the probe is 3 nats" in capsys.readouterr().err
    trainer.callbacks = []
    Alarms(kl=2.0).on_train_batch_end(trainer, SimpleNamespace())  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wrong", [{"kl": 0.0}, {"length_factor": 1.0}, {"entropy": 1.0}])
def test_a_bound_that_always_rings_is_refused(wrong):
    with pytest.raises(ConfigError, match="Alarms needs kl > 0"):
        Alarms(**wrong)
