"""Speed and shares of a run: what is logged, on a clock and a device that are set by hand."""

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from alignlab.callbacks import meter
from alignlab.callbacks.journal import ProgressLines
from alignlab.callbacks.meter import Bar, Meter, TimeLeft, matmul_rate
from alignlab.clock import CLOCK
from alignlab.models.work import Work
from alignlab.objectives.schedule import Schedule
from alignlab.results.csv_tables import read_table
from tests.cells import make_cell, rows_file

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*:UserWarning")


@pytest.fixture
def fit(build, tmp_path):
    build().save(tmp_path / "start")
    source = rows_file(tmp_path / "rows.jsonl")

    def train(name, *callbacks, steps=4, **settings):
        made = make_cell(
            name, source, str(tmp_path / "start"), tmp_path / "cache", Schedule(), micro=2
        )
        trainer = L.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", accumulate_grad_batches=2,
            logger=CSVLogger(tmp_path, name="", version="log"), log_every_n_steps=2,
            enable_progress_bar=any(isinstance(each, Bar) for each in callbacks),
            enable_model_summary=False, enable_checkpointing=False,
            num_sanity_val_steps=0, callbacks=list(callbacks), **settings,
        )  # fmt: skip
        trainer.fit(*made)
        return read_table(tmp_path / "log" / "metrics.csv")

    return train


def test_tokens_flops_and_seconds_of_a_window(fit, monkeypatch):
    """Each read of the clock is a second, a matmul makes 1 FLOP a second: all is to be counted."""
    seen = []

    class Sum(L.Callback):
        """What the batches held."""

        def on_train_batch_start(self, trainer, module, batch, index):
            if index % 2 == 0:
                seen.append([0, batch.totals.tokens])
            tokens = int(batch.prompt_lengths.sum() + batch.completion_lengths.sum())
            seen[-1][0] += tokens

    monkeypatch.setattr(meter, "matmul_rate", lambda device, dtype: 1.0)
    flops, real = [], vars(Work)["flops"].fget

    def noted(work):
        flops.append(real(work))
        return flops[-1]

    monkeypatch.setattr(Work, "flops", property(noted))
    own = Meter()
    rows = [row for row in fit("dpo", own, Sum()) if row["speed/utilisation"]]
    assert [int(row["step"]) for row in rows] == [1, 3]  # beside Lightning's own
    for row, steps in zip(rows, (seen[:2], seen[2:]), strict=True):
        ratio = float(row["speed/trained_per_second"]) / float(row["speed/tokens_per_second"])
        read, trained = map(sum, zip(*steps, strict=True))
        assert ratio == pytest.approx(trained / read)
        shares = [float(v) for k, v in row.items() if k.startswith("time/") and v]
        assert sum(shares) == pytest.approx(1)
        assert float(row["time/reference"]) > 0
        assert float(row["time/data"]) > 0
    # Policy and reference at both times; the second row counts what came after the first.
    policy, reference = flops[2] - flops[0], flops[3] - flops[1]
    read = sum(step[0] for step in seen[2:])
    rate = float(rows[1]["speed/utilisation"]) / float(rows[1]["speed/tokens_per_second"])
    assert rate == pytest.approx((policy + reference) / read, rel=1e-5)
    assert 2.5 < policy / reference < 3.5  # forward and two products back, against a forward
    assert own.said().count(" tokens/s (") == 1
    assert not CLOCK.seconds  # nothing runs on


@pytest.mark.filterwarnings("ignore:You passed in a")
def test_a_phase_of_rollouts_has_its_own_shares(fit):
    row = next(row for row in fit("rloo", Meter()) if row["speed/utilisation"])
    parts = {k.removeprefix("time/") for k, v in row.items() if k.startswith("time/") and v}
    assert parts == {"update", "rollout", "reward", "reference", "data"}
    assert float(row["time/rollout"]) > float(row["time/reward"])
    assert float(row["speed/utilisation"]) > 0


def test_probes_and_validation_are_left_out_of_the_speed(fit, monkeypatch):
    time, counted = [0.0], list[int]()
    monkeypatch.setattr("alignlab.callbacks.meter.time.perf_counter", lambda: time[0])

    class Slow(L.Callback):
        """A step of one second in two parts, and a probe of three that reads as many rows."""

        def on_train_batch_start(self, trainer, module, batch, index):
            counted.append(batch.totals.tokens)
            time[0] += 0.5

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            with CLOCK.part("probe"), torch.no_grad():
                time[0] += 1.5
                before = [work.flops for work in own._works]
                module.policy(batch)
                assert [work.flops for work in own._works] == before

    own = Meter()
    monkeypatch.setattr(meter, "matmul_rate", lambda device, dtype: 1.0)
    row = next(row for row in fit("simpo", Slow(), own) if row["speed/utilisation"])
    assert float(row["time/probe"]) == pytest.approx(0.75)
    assert float(row["time/update"]) == pytest.approx(0.25)
    tokens = sum(counted[:4:2])  # of two steps, which took a second each
    assert float(row["speed/trained_per_second"]) * 2 == pytest.approx(tokens)


def test_the_bar_and_the_lines_say_it(fit, capsys):
    own = Meter()
    bar, lines = Bar(own), ProgressLines(own, every_seconds=0.0)
    trainers = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            trainers.append(bar.get_metrics(trainer, module))

    fit("dpo", own, bar, lines, Look())
    assert trainers[0].keys() == {"loss"} or not trainers[0]
    assert trainers[-1].keys() == {"loss", "run_left", "speed"}
    assert "tokens/s" in trainers[-1]["speed"]
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step 4")][-1]
    assert "about 0 s left; " in last
    assert "% of the matmul rate, update " in last


def test_time_left_is_that_of_the_run(monkeypatch):
    now = [10.0]
    monkeypatch.setattr("alignlab.callbacks.meter.time.monotonic", lambda: now[0])
    trainer = type("T", (), {"global_step": 3, "estimated_stepping_batches": 10})()
    left = TimeLeft()
    left.start(trainer)
    assert left.seconds(trainer) is None
    trainer.global_step, now[0] = 5, 14.0
    assert left.seconds(trainer) == pytest.approx(2.0 * 5)
    trainer.estimated_stepping_batches = math.inf
    assert left.seconds(trainer) is None


def test_the_rate_of_products_is_measured_once():
    matmul_rate.cache_clear()
    rate = matmul_rate("cpu", torch.float32)
    assert 1e8 < rate < 1e14
    assert matmul_rate("cpu", torch.float32) == rate


@pytest.mark.filterwarnings("ignore:You passed in a")
@pytest.mark.parametrize(
    ("name", "kind"), [("dpo", "simple"), ("rloo", "simple"), ("rloo", "advanced")]
)
def test_a_profiler_lists_the_parts(fit, tmp_path: Path, caplog, name, kind):
    with caplog.at_level("INFO", "lightning.pytorch.profilers"):
        fit(name, Meter(), steps=2, profiler=kind)
    parts = {"reference", "data"} | ({"rollout", "reward"} if name == "rloo" else set())
    for part in parts:
        assert f"[alignlab]{part}" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You passed in a")
@pytest.mark.parametrize(("name", "part"), [("dpo", "reference"), ("rloo", "data")])
def test_pytorchs_profiler_lists_the_parts(fit, tmp_path: Path, name, part):
    """It records a few micro-batches behind the first, so no sampling of the first phase."""
    fit(name, Meter(), steps=6, profiler="pytorch")
    traces = [path.read_text() for path in tmp_path.rglob("*.pt.trace.json")]
    assert any(f"[alignlab]{part}" in trace for trace in traces)
