"""A run of ``fit`` is a results folder: ``frontier`` reads it, its pool is drawn once."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab import cli
from alignlab.models.policy import Policy
from alignlab.report import command as commands
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import read_scores
from alignlab.results.run_folder import Evaluation
from alignlab.results.tables import read_frontier, read_points
from tests.test_cli import call

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Policy]) -> Path:
    """A stage that prefers w5 to w6, measured by a reward of the user's."""
    folder = tmp_path_factory.mktemp("lone")
    build(dtype="float32").save(folder / "policy")
    pairs = [{"prompt": f" w{i}", "chosen": " w5 w5", "rejected": " w6 w6"} for i in range(8, 16)]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    probe = {
        "prompts": str(folder / "pairs.jsonl"),
        "reward": {"class_path": "tests.training.test_lone_run.Fives"},
        "samples": 4,
        "max_new_tokens": 3,
        "every_n_steps": 2,
    }
    config: dict[str, Any] = {
        "model": {
            "class_path": "alignlab.objectives.dpo.DPO",
            "init_args": {
                "policy": {"source": str(folder / "policy")},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.03}},
            },
        },
        "data": {
            "class_path": "alignlab.data.modules.PreferenceData",
            "init_args": {"source": str(folder / "pairs.jsonl"), "batch_size": 8},
        },
        "trainer": {"max_steps": 6, "accelerator": "cpu"},
        "probe": probe,
        "seed_everything": 7,
    }
    (folder / "stage.yaml").write_text(yaml.safe_dump(config))
    return folder / "stage.yaml"


class Fives:
    """How often a completion says w5."""

    def __call__(self, prompts: Any, completions: Any) -> Any:
        import torch

        return torch.tensor([float(text.count("w5")) for text in completions])


def test_fit_and_then_frontier(
    stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "CURVE_POINTS", 4)
    assert call("fit", "--config", str(stage)) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("Probe: KL ")
    assert re.fullmatch(r"Loss: \d\S* in the last step", lines[2])
    assert lines[3:] == [f"Files: {run}", f"Reward against KL: alignlab frontier {run}"]
    assert call("frontier", "lightning_logs/version_0") == 0
    said = capsys.readouterr().out
    assert "sampling 32 completions of the reference for each of 8 prompts, once" in said
    assert "lightning_logs/version_0: 3 checkpoints, 8 prompts" in said
    points = read_points(run / "points.csv")
    for point in points:  # the probe's own means
        means = read_scores(Evaluation(run, point.step).scores).means()
        assert (point.kl, point.reward) == pytest.approx((means["kl"], means["reward"]))
        assert (point.objective, point.seed) == ("dpo", 7)
        assert point.hparams["beta"] == 0.1
        assert point.hparams["lr"] == 0.03
    assert [point.step for point in points] == [2, 4, 6]
    pool = Pool.load(run / "pool.parquet")
    assert pool.rewards.shape == (8, 32)
    reference = next(r for r in read_frontier(run / "frontier.csv") if r.objective == "reference")
    assert reference.reward == pytest.approx(float(pool.rewards.mean()), rel=1e-4)
    # Again, from the folder above: nothing is sampled, and the files go to that folder.
    assert call("frontier", ".") == 0
    assert "sampling" not in capsys.readouterr().out
    assert (tmp_path / "frontier.csv").read_bytes() == (run / "frontier.csv").read_bytes()
    # A run of the same number elsewhere is another run.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("fit", "--config", str(stage), "--model.init_args.beta=0.5") == 0
    assert call("frontier", ".", str(run), "--out", "both") == 0
    assert {p.run_id for p in read_points(run / "points.csv")} == {f"{tmp_path.name}-version_0"}
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    # Of another probe, and of one in trainer.callbacks, the pool is drawn for itself.
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["probe"]["init_args"]["seed"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert call("frontier", ".") == 0
    assert "sampling" in capsys.readouterr().out
    config["trainer"]["callbacks"] = [config.pop("probe")]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert call("frontier", ".") == 0
    assert "sampling" in capsys.readouterr().out
    # What no longer is what was written is not read.
    damaged = run / "points" / "step-000004.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert call("frontier", str(run)) == 2
    assert "step-000004.parquet: damaged, or not what the run wrote" in capsys.readouterr().err


def test_a_run_that_reaches_no_budget_is_told_what_to_change(
    stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "CURVE_POINTS", 4)
    still = ["--model.init_args.optimizer.init_args.lr=1e-9", "--trainer.max_steps=2"]
    assert call("fit", "--config", str(stage), "--trainer.logger=false", *still) == 0
    assert call("frontier", ".") == 0
    said = capsys.readouterr().out
    assert "No run reaches KL 0.25, the smallest budget: the farthest is " in said
    assert "Train longer, raise the learning rate, or lower beta or kl_coef." in said


def test_a_folder_without_runs_is_told_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["frontier", str(tmp_path)])
    assert "points.csv: no such table" in capsys.readouterr().err
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit):
        cli.main(["frontier", str(tmp_path)])
    assert "a run without an evaluation. Give its config a probe" in capsys.readouterr().err
