"""The quickstart, made small: killed at random moments it ends with the same tables and weights."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from alignlab.pipeline import run_experiment
from alignlab.results.tables import read_points
from tests.pipeline.test_run import without_seconds

pytestmark = pytest.mark.slow

KILLS = 10
PROBE = {"probe.every_n_steps": 30, "probe.samples": 4}
PPO = {
    "grid": [{"model.init_args.kl_target": 1.0, "model.init_args.kl_coef": 1.9}],
    "set": {"trainer.max_steps": 100, **PROBE},
}
PROPOSAL = "ppo_gt-kl_target1-kl_coef1.9-s0"
SMALL = {
    "seeds": [0],
    "stages": {
        "world": {"args": {"demonstrations": 2048, "train_prompts": 512}},
        "sft": {"set": {"trainer.max_steps": 60}},
        "pairs": {"args": {"samples": 4, "pairs_per_prompt": 2}},
        "reward_model": {"set": {"trainer.max_steps": 60}},
        "dpo": {
            "grid": {"model.init_args.beta": [1.6]},
            "set": {"trainer.max_steps": 150, **PROBE},
        },
        "ppo": PPO,
        "ppo_gt": PPO,
        "pool": {
            "needs": ["world", "sft", "reward_model-s0", PROPOSAL],
            "args": {"samples": 64, "proposals": {"far": f"{{{PROPOSAL}}}"}},
        },
    },
}


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment with a scale ``small``; the current folder is where results appear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # no commit made meanwhile can change a table
    source = Path(__file__).parents[2] / "experiments" / "quickstart"
    shutil.copytree(source, tmp_path / "quickstart")
    scales = tmp_path / "quickstart" / "scales"
    scales.mkdir(exist_ok=True)
    (scales / "small.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return Path("quickstart")


def test_killed_and_continued_it_ends_the_same(quickstart: Path) -> None:
    began = time.monotonic()
    assert run_experiment(quickstart, scale="small", results=Path("whole")) == 0
    longest = (time.monotonic() - began) / 2
    points = read_points(Path("whole/points.csv"))
    assert {point.objective for point in points} == {"dpo", "ppo", "ppo_gt"}
    rng = random.Random(1)
    command = [sys.executable, "-m", "alignlab.cli", "run", "quickstart", "--scale", "small"]
    for _ in range(KILLS):
        process = subprocess.Popen([*command, "--results", "killed"])
        time.sleep(rng.uniform(3, longest))
        process.kill()
        process.wait()
    assert run_experiment(quickstart, scale="small", results=Path("killed")) == 0
    assert without_seconds(Path("killed/points.csv")) == without_seconds(Path("whole/points.csv"))
    for whole in [Path("whole/frontier.csv"), *Path("whole/stages").rglob("model.safetensors")]:
        killed = Path("killed") / whole.relative_to("whole")
        assert killed.read_bytes() == whole.read_bytes(), whole
