"""A fork has its parent's settings but for the changes, and its parent in its record."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.files import write_record
from alignlab.models.policy import Policy
from alignlab.plan.overlay import read_yaml, write_yaml
from alignlab.records.find import find_run
from alignlab.records.fork import fork, forked
from tests.records.conftest import config, lone
from tests.test_cli import call

ROOTS = [Path("results")]
BETA = "model.init_args.beta=0.25"


def test_a_fork_has_the_parents_settings_and_the_changes(toy: Path) -> None:
    more = "trainer.gradient_clip_val=1.5"
    path, lines = fork("dpo-beta0.5-s0", ROOTS, [BETA, more], None, start=False)
    assert path == Path("forks/dpo-beta0.5-s0-beta0.25-gradient_clip_val1.5.yaml")
    wanted = config(toy, "dpo-beta0.5-s0")
    wanted["model"]["init_args"]["beta"] = 0.25
    wanted["trainer"]["gradient_clip_val"] = 1.5
    wanted["parent"] = {"run": "results/toy/dpo-beta0.5-s0", "config_sha": "sha-dpo-beta0.5-s0"}
    assert read_yaml(path) == wanted
    assert lines == [
        "model.init_args.beta: 0.5 -> 0.25",
        "trainer.gradient_clip_val: - -> 1.5",
        f"{path}: a fork of results/toy/dpo-beta0.5-s0",
        "note: its inputs were not kept: results/toy/sft, results/toy/pairs-s0. Make them first.",
        f"Train it: alignlab fit --config {path}",
    ]


def test_places_of_the_parents_files_are_not_inherited(toy: Path) -> None:
    run = lone(Path("logs/version_0"))
    own = config(toy, "dpo-beta0.5-s0")
    csv = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "else"}}
    own["trainer"] |= {"default_root_dir": "logs/version_0", "logger": csv}
    own |= {"ckpt_path": "logs/version_0/last.ckpt", "parent": {"run": "a", "config_sha": "b"}}
    (run / "config.yaml").write_text(write_yaml(own))
    path, _ = fork(str(run), ROOTS, [BETA], Path("new.yaml"), start=False)
    found = read_yaml(path)
    assert found["trainer"] == {"max_steps": 20, "logger": csv}
    assert "ckpt_path" not in found
    assert found["parent"] == {"run": "logs/version_0", "config_sha": ""}


@pytest.mark.parametrize(
    ("run", "setting", "message"),
    [
        ("dpo-beta0.5-s0", "model.init_args.betaa=1", "unknown key model.init_args.betaa"),
        ("dpo-beta0.5-s0", "model.init_args.beta=-1", "beta"),
        ("dpo-beta0.5-s0", "model.init_args.beta=0.5", "has these settings already"),
        ("dpo-beta0.5-s0", "beta", "expected KEY=VALUE"),
        ("dpo-beta0.5-s0", "beta=[", "expected KEY=VALUE"),
        ("sft", "a=1", "is a call, which trains nothing"),
        ("dpo-beta1-s0", BETA, "config was not kept"),
    ],
)
def test_a_fork_that_cannot_be_is_refused_and_leaves_no_file(
    toy: Path, run: str, setting: str, message: str
) -> None:
    (toy / "configs" / "dpo-beta1-s0.yaml").unlink()
    with pytest.raises(ConfigError, match=message):
        fork(run, ROOTS, [setting], None, start=False)
    assert not Path("forks").exists()


def test_a_fork_is_not_started_without_its_inputs_nor_written_over_a_file(toy: Path) -> None:
    with pytest.raises(ConfigError, match="inputs were not kept: results/toy/sft, results/toy/pa"):
        fork("dpo-beta0.5-s0", ROOTS, [BETA], None, start=True)
    for job in ("sft/all", "pairs/s0"):
        write_record(toy / "stages" / job / "job.json", {"config_sha": "c", "git_sha": "g"})
    _, lines = fork("dpo-beta0.5-s0", ROOTS, [BETA], None, start=True)
    assert len(lines) == 2
    with pytest.raises(ConfigError, match="is there already"):
        fork("dpo-beta0.5-s0", ROOTS, [BETA], None, start=True)


def test_a_setting_may_be_deep_or_null() -> None:
    before = {"trainer": {"callbacks": [{"init_args": {"samples": 4}}]}}
    after = forked(before, ["trainer.callbacks.0.init_args.samples=8", "model.lora=null"])
    assert after == {
        "trainer": {"callbacks": [{"init_args": {"samples": 8}}]}, "model": {"lora": None},
    }  # fmt: skip
    assert before["trainer"]["callbacks"][0]["init_args"]["samples"] == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")
def test_a_trained_fork_shows_its_parent_and_what_differs(
    build: Callable[..., Policy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    build(dtype="float32").save(tmp_path / "policy")
    rows = [{"prompt": f" w{i}", "chosen": " w5", "rejected": " w6"} for i in range(8, 16)]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own = config(tmp_path, "dpo-beta0.5-s0")
    own["model"]["init_args"]["policy"]["source"] = "./policy"
    own["data"]["init_args"]["source"] = "./pairs.jsonl"
    own["trainer"] = {"max_steps": 2, "accelerator": "cpu"}
    own["probe"] = {
        "prompts": "pairs.jsonl", "reward": {"class_path": "alignlab.rewards.rule.ToySentiment"},
        "samples": 2, "max_new_tokens": 2, "every_n_steps": 2,
    }  # fmt: skip
    Path("stage.yaml").write_text(write_yaml(own))
    assert call("fit", "--config", "stage.yaml") == 0
    first = "lightning_logs/version_0"
    assert call("fork", first, "--set", BETA, "--out", "new.yaml", "--run") == 0
    capsys.readouterr()
    run = find_run("lightning_logs/version_1", ROOTS)
    assert run.parent == {"run": first, "config_sha": ""}
    assert run.origin["commands"] == ["alignlab fit --config new.yaml"]
    assert call("show", "lightning_logs/version_1") == 0
    said = capsys.readouterr().out
    assert f"parent    {first}" in said
    assert "result    step 2: KL " in said
    assert call("diff", first, "lightning_logs/version_1") == 0
    said = capsys.readouterr().out
    assert "settings  model.init_args.beta: 0.5 -> 0.25\ndata " in said
    assert "the same: ./pairs.jsonl" in said
    assert "8 prompts by a paired bootstrap, 1 seed: variance over training seeds" in said
