"""README's "Bring your own model, data and reward", typed: 400 pairs, a reward class, no hub."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignlab.results.prompt_tables import read_scores
from alignlab.results.run_folder import evaluations_in
from alignlab.results.tables import read_frontier, read_points

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


def blocks(language: str) -> list[str]:
    """Code blocks of the README's section "Bring your own model, data and reward"."""
    section = (ROOT / "README.md").read_text().split("\n## Bring your own")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_the_walk_as_it_stands_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    shutil.copytree(ROOT / "experiments" / "own_data", tmp_path / "experiments" / "own_data")
    (reward,), (commands, *_) = blocks("python"), blocks("bash")
    (tmp_path / "my_reward.py").write_text(reward)
    write_pairs(tmp_path / "pairs.jsonl", 400)
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "train: pairs.jsonl: 400 of 400 rows kept" in said
    assert f"Trained 60 steps. Model: {RUN}/model" in said
    assert f"Reward against KL: alignlab frontier {RUN}" in said
    assert len(re.findall(r"reward \d+\.000\]", said)) == 4
    assert "3 checkpoints, 64 prompts" in said
    points = read_points(tmp_path / RUN / "points.csv")
    assert [point.step for point in points] == [20, 40, 60]
    rows = read_frontier(tmp_path / RUN / "frontier.csv")
    reached = [row.reward for row in rows if row.objective == "dpo" and row.reward is not None]
    start = next(row.reward for row in rows if row.objective == "reference")
    assert start is not None
    assert max(reached) > start + 0.5
    assert (tmp_path / RUN / "frontier.png").stat().st_size
    trained = evaluations_in(tmp_path / RUN.replace("_0", "_1"))
    assert [each.step for each in trained] == [20, 40, 60]
    assert read_scores(trained[-1].scores).means()["reward"] > start + 0.5
