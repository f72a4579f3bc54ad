"""``alignlab doctor`` and the doctor's lines at the start of ``alignlab fit``."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab import cli

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}


@pytest.fixture
def stage(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DPO on a few pairs, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f" w{k}", "chosen": " w4 w5", "rejected": " w9 w9"} for k in range(3, 15)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = {"config": {"model_type": "llama", "num_attention_heads": 2, **SIZES}}
    arguments: dict[str, Any] = {
        "policy": policy | {"tokenizer": str(words)},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
        "reference": "cached",
        "reference_cache": "cache",
        "schedule": {"warmup_steps": 4, "decay": "linear"},
    }
    config = {
        "model": {"class_path": "alignlab.objectives.dpo.DPO", "init_args": arguments},
        "data": {
            "class_path": "alignlab.data.modules.PreferenceData",
            "init_args": {"source": "rows.jsonl", "batch_size": 4, "max_length": 32},
        },
        "trainer": {"max_steps": 20, "logger": False, "accelerator": "cpu"},
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.slow
def test_a_healthy_stage_is_examined_and_nothing_is_left(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(stage.parent.iterdir())
    assert call("doctor", "--config", str(stage), "--json") == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert {name for name, each in found.items() if each["state"] != "ok"} == set()
    assert {"loss", "layout", "disk", "memory", "KL to come"} <= found.keys()
    assert "0.6931 = log 2" in found["loss"]["advice"]
    # 4 steps of warm-up (0, 1/4, 2/4, 3/4) and 16 of a linear decay: 10 steps at the full rate.
    assert "the schedule has 1.25 times that" in found["KL to come"]["advice"]
    assert set(stage.parent.iterdir()) == before


@pytest.mark.slow
def test_a_learning_rate_that_drives_the_policy_away_is_found(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = "--model.init_args.optimizer.init_args.lr"
    words = ["doctor", "--config", str(stage), "--trainer.max_steps=400"]
    assert call(*words, rate, "1.0") == 0
    said = capsys.readouterr().out
    assert "warning  KL to come" in said
    assert "Lower the learning rate" in said


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ((), "there is nothing to examine"),
        (
            ("stage.yaml",),
            "a stage's file needs --config. Call: alignlab doctor --config stage.yaml",
        ),
    ],
)
def test_a_call_without_a_stage_is_refused(
    stage: Path, words: tuple[str, ...], state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("doctor", *words) == 2
    assert state in capsys.readouterr().err


def test_what_the_parser_and_constructors_refuse_is_a_stop(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("doctor", "--config", str(stage), "--model.init_args.betaa", "1") == 2
    assert capsys.readouterr().out.startswith("stop     config  ")
    assert call("doctor", "--config", str(stage), "--model.init_args.beta", "-1", "--json") == 2
    found = json.loads(capsys.readouterr().out)[0]
    assert found["state"] == "stop"
    assert "beta" in found["advice"]


def test_fit_says_a_line_if_all_is_well_and_names_what_is_not(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(stage), "--trainer.max_steps=1"]
    assert call(*words) == 0
    said = [line for line in capsys.readouterr().err.split("\n") if line.startswith("doctor: ")]
    assert len(said) == 1
    assert " checks ok in " in said[0]
    assert call(*words, "--model.init_args.policy.init_args.dropout=0.1") == 0
    said = [line for line in capsys.readouterr().err.split("\n") if line.startswith("doctor: ")]
    assert [line.split(":")[1].strip() for line in said[:1]] == ["dropout"]
    assert "1 warning in" in said[-1]


def test_a_stop_ends_a_run_before_its_first_step(
    stage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignlab.doctor import examine

    monkeypatch.setattr(examine, "FAST", {"layout": lambda patient: ("stop", "Rows leak.")})
    assert call("fit", "--config", str(stage)) == 2
    assert "error: layout: Rows leak.\n" in capsys.readouterr().err
    assert not (stage.parent / "model").exists()


@pytest.mark.slow
def test_a_run_that_is_continued_is_not_examined_again(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(stage), "--trainer.max_steps"]
    assert call(*words, "1") == 0
    assert "doctor: " in capsys.readouterr().err
    assert call(*words, "2", "--ckpt_path", "last.ckpt") == 0
    assert "doctor: " not in capsys.readouterr().err
