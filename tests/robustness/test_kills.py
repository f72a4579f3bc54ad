"""Runs that are killed and continued end as if nothing had happened."""

import subprocess
import sys
from pathlib import Path

from tests.robustness.budget import kills
from tests.robustness.trainings import NAMES

ROOT = Path(__file__).parents[2]


def test_killed_trainings_end_with_the_same_bits(tmp_path: Path) -> None:
    """In a process of its own: forking one that has run other tests would copy their threads."""
    table = tmp_path / "kills.csv"
    words = ["-m", "tests.robustness.kills", "--kills", str(kills()), "--out", str(table)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(table.read_text().splitlines()) == kills() + 1


def test_every_objective_is_among_the_trainings() -> None:
    """49: one of each file, plain texts, and variants of SimPO, PPO and DPO."""
    files = {path.stem for path in (ROOT / "alignlab" / "objectives").glob("*.py")}
    shared = {"__init__", "base", "schedule", "settings", "metrics"}
    shared |= {"scored", "rankings", "candidates", "on_policy"}
    more = {"lm", "ppo_ptx", "dpo_lora", "dpo_cached", "alphapo"}
    assert set(NAMES) == (files - shared) | more
    assert len(NAMES) == 49
