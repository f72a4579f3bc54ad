"""The walk "Your own data": 400 pairs and a reward class in a working directory, and no hub."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignlab.evaluation.tables import read_frontier, read_points

ROOT = Path(__file__).parents[2]
RUN = "results/own_data/lightning_logs/version_0"


def write_pairs(path: Path, rows: int) -> None:
    """Prompts with a longer reply that is preferred to a shorter one."""
    draw = random.Random(0)
    things = [
        "cats",
        "trains",
        "rivers",
        "letters",
        "gardens",
        "songs",
        "storms",
        "bridges",
        "maps",
        "bees",
    ]
    deeds = ["carry", "follow", "remember", "build", "cross", "paint", "count", "hide"]

    def reply(sentences: int) -> str:
        parts = [f"the {draw.choice(things)} {draw.choice(deeds)} the {draw.choice(things)}"
                 for _ in range(sentences)]  # fmt: skip
        return f" {' and '.join(parts)}."

    pairs = [
        {
            "prompt": f"Tell me about {draw.choice(things)} and {draw.choice(things)}.",
            "chosen": reply(draw.randint(2, 3)),
            "rejected": reply(1),
        }
        for _ in range(rows)
    ]
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))


@pytest.mark.slow
def test_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(ROOT / "experiments" / "own_data", tmp_path / "experiments" / "own_data")
    shutil.copy(Path(__file__).parent / "own_data" / "my_reward.py", tmp_path)
    write_pairs(tmp_path / "pairs.jsonl", 400)
    here = Path(sys.executable).parent / "alignlab"

    def alignlab(*words: str) -> str:
        done = subprocess.run(
            [str(here), *words], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    alignlab("run", "experiments/own_data")
    said = alignlab("fit", "--config", "experiments/own_data/dpo.yaml")
    assert "train: pairs.jsonl: 400 of 400 rows kept" in said
    assert f"Trained 60 steps. Model: {RUN}/model" in said
    assert f"Reward against KL: alignlab frontier {RUN}" in said
    prompt = ["--prompt", "Tell me about old trains.", "--samples", "2"]
    said = alignlab("sample", "--policy", f"{RUN}/model", *prompt, "--reward", "my_reward.MyReward")
    assert len(re.findall(r"reward \d+\.000\]", said)) == 2
    said = alignlab("frontier", RUN)
    assert "3 checkpoints, 64 prompts" in said
    points = read_points(tmp_path / RUN / "points.csv")
    assert [point.step for point in points] == [20, 40, 60]
    reached = [row for row in read_frontier(tmp_path / RUN / "frontier.csv")
               if row.objective == "dpo" and row.reward is not None]  # fmt: skip
    start = next(row for row in read_frontier(tmp_path / RUN / "frontier.csv")
                 if row.objective == "reference")  # fmt: skip
    assert start.reward is not None
    assert max(row.reward or 0.0 for row in reached) > start.reward + 0.5
    assert (tmp_path / RUN / "frontier.png").stat().st_size
