"""A sweep over stages that are never run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.sweep.spec import Sweep, load_sweep
from alignlab.sweep.study import Slots, open_study
from alignlab.sweep.trial_queue import TrialQueue
from tests.pipeline.test_run import ROOT, stages
from tests.sweep.test_run import RESULTS, SPACE, Write
from tests.sweep.test_trial_queue import Begin, Hand

DPO = {
    "model": {"class_path": "m.DPO", "init_args": {"policy": "{sft}", "beta": 0.3}},
    "trainer": {"callbacks": [{"class_path": "m.Probe"}]},
}


PIPELINE: dict[str, Any] = {
    "seeds": [0, 1],
    "stages": {
        "sft": {"call": "m.sft"},
        "pairs": {"call": "m.pairs", "per_seed": True},
        "dpo": {
            "fit": "dpo.yaml",
            "objective": "dpo",
            "needs": ["sft", "pairs"],
            "per_seed": True,
            "grid": {"model.init_args.beta": [7.0]},
        },
        "pool": {"call": "m.pool", "needs": ["dpo-beta7-s0"]},
    },
    "frontier": {"needs": ["pool"], "args": {"reward_label": "gold"}},
}


SWEEP: dict[str, Any] = {
    "experiment": "demo",
    "arms": {"dpo": {}},
    "space": {"model.init_args.beta": [0.5, 1.0]},
    "metrics": {"reward": "maximize", "kl": "minimize"},
    "sampler": "grid",
}

BETA = "model.init_args.beta"
RANGE = {BETA: {"float": [0.1, 1.0]}}


def refused(load: Any, changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    Path("demo/pipeline.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    Path("demo/dpo.yaml").write_text(yaml.safe_dump(DPO))

    def read(**changes: Any) -> Sweep:
        content = {key: value for key, value in (SWEEP | changes).items() if value is not None}
        Path("try.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_sweep(Path("try.yaml"))

    return read


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the experiment ``demo`` and a sweep ``try.yaml`` over it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # no commit made meanwhile can change a table

    def to_file(seconds: float = 0.0, more: dict[str, Any] | None = None, **keys: Any) -> Path:
        (tmp_path / "demo").mkdir(exist_ok=True)
        own = stages(seconds) | (more or {})
        plan = {"seeds": [0, 1], "stages": own, "frontier": {"needs": ["pool"]}}
        (tmp_path / "demo" / "pipeline.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        sweep = {
            "experiment": "demo",
            "arms": {"dpo": {}},
            "space": SPACE,
            "metrics": {"reward": "maximize", "kl": "minimize"},
            "sampler": "grid",
        } | keys
        (tmp_path / "try.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
        return Path("try.yaml")

    return to_file


@pytest.fixture
def begin(write: Callable[..., Path]) -> Begin:
    """Begins a call of a sweep over two betas and two seeds; every call has a study of its own."""

    def call(keys: dict[str, Any] | None = None, **changes: Any) -> Hand:
        path = write(**({"space": {"beta": [1.0, 2.0]}} | (keys or {})))
        sweep = load_sweep(path, RESULTS)
        sweep = replace(sweep, keys=sweep.keys.model_copy(update=changes))
        storage = optuna.storages.InMemoryStorage()
        study = open_study(sweep, storage)
        return Hand(sweep, study, TrialQueue(sweep, Slots(sweep, study, storage, None), print))

    return call
