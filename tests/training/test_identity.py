"""A checkpoint goes on with the config that it is of, but for what shapes no weight."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from alignlab.training.identity import OtherConfig, check_same, identity_of

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "threads": 1,
    "ckpt_path": None,
    "model": {
        "class_path": "alignlab.objectives.dpo.DPO",
        "init_args": {
            "policy": {"source": "rows"},
            "beta": 0.1,
            "schedule": None,
            "reference_cache": "somewhere/reference_cache",
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        },
    },
    "data": {"class_path": "alignlab.data.modules.PreferenceData", "init_args": {"limit": None}},
    "trainer": {
        "max_steps": 8,
        "max_epochs": None,
        "precision": "32-true",
        "logger": True,
        "callbacks": [{"class_path": "alignlab.callbacks.probe.FrontierProbe", "init_args": {}}],
    },
}


def changed(key: str, value: Any) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    *parents, last = key.split(".")
    inside = config
    for name in parents:
        inside = inside[name]
    inside[last] = value
    return config


def check(config: dict[str, Any]) -> None:
    check_same(identity_of(CONFIG), identity_of(config), Path("run/last.ckpt"))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.init_args.beta", 0.2, "model.init_args.beta 0.1 -> 0.2"),
        ("model.init_args.optimizer.init_args.lr", 1e-9, "lr 0.001 -> 1e-09"),
        ("model.init_args.schedule", {"warmup_steps": 5}, "warmup_steps null -> 5"),
        ("model.init_args.policy.source", "other", 'source "rows" -> "other"'),
        ("model.class_path", "alignlab.objectives.ipo.IPO", 'DPO" -> "alignlab.objectives.ipo'),
        ("seed_everything", 1, "seed_everything 0 -> 1"),
        ("data.init_args.limit", 10, "data.init_args.limit null -> 10"),
        ("trainer.precision", "bf16-mixed", 'trainer.precision "32-true" -> "bf16-mixed"'),
        ("trainer.gradient_clip_val", 1.0, "trainer.gradient_clip_val null -> 1.0"),
        (
            "trainer.callbacks",
            [{"class_path": "lightning.pytorch.callbacks.StochasticWeightAveraging"}],
            'trainer.callbacks.0.class_path null -> "lightning',
        ),
        ("trainer.callbacks", [{"class_path": "mine.Freeze"}], 'null -> "mine.Freeze"'),
    ],
)
def test_another_setting_is_refused_by_name(key: str, value: Any, said: str) -> None:
    with pytest.raises(OtherConfig) as error:
        check(changed(key, value))
    assert said in str(error.value)
    assert str(error.value).startswith("run/last.ckpt is of another config: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.max_steps", 12),
        ("trainer.max_epochs", 3),
        ("trainer.max_time", "00:00:10:00"),
        ("trainer.logger", False),
        ("trainer.default_root_dir", "elsewhere"),
        ("trainer.log_every_n_steps", 1),
        ("trainer.callbacks", None),
        ("trainer.callbacks", [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]),
        ("threads", 4),
        ("ckpt_path", "run/last.ckpt"),
        ("model.init_args.reference_cache", "elsewhere"),
    ],
)
def test_how_long_and_where_to_may_change(key: str, value: Any) -> None:
    check(changed(key, value))


def test_an_input_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_text("{}")
    before = identity_of(changed("data.init_args.source", "a.jsonl"))
    check_same(before, identity_of(changed("data.init_args.source", "b.jsonl")), Path("x"))
    Path("a.jsonl").write_text("{ }")
    with pytest.raises(OtherConfig, match=r'source "a.jsonl" with another content'):
        check_same(before, identity_of(changed("data.init_args.source", "a.jsonl")), Path("x"))
