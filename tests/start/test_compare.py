"""``alignlab compare``: one command to an answer, continued after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignlab.start import compare
from tests.start.test_init import call, write_files

SMALL = ["--policy", "m", "--pairs", "pairs.jsonl", "--steps", "2", "--batch", "8"]
SMALL += ["--max-length", "128", "--new-tokens", "4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "2h", "--seeds", "2"], "--budget decides how many settings and seeds"),
        (["--objectives", "dpo,ppo"], "ppo needs --reward"),
        (["--objectives", "dpo,best"], "no objective 'best'; choose from dpo, ipo"),
        (["--budget", "soon"], "expected a time such as 90s, 25m or 2h, got 'soon'"),
        (["--settings", "9"], "--settings must be 1 to 5, got 9"),
        (["--reward", "my_reward"], "reward 'my_reward' is none of the known forms"),
        (["--pairs", "none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_written(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("compare", "--policy", "m", "--pairs", "pairs.jsonl", *words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_first_call_that_is_refused_by_its_model_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The doctor's stop, or a model that is not there: the files written for it would be kept."""
    monkeypatch.chdir(tmp_path)
    write_files()
    before = set(tmp_path.iterdir())

    def examine(folder: Path, objective: str, results: Path) -> int:
        (results / "stages").mkdir(parents=True, exist_ok=True)
        assert (folder / "pipeline.yaml").is_file()
        return 2

    monkeypatch.setattr(compare, "_examine", examine)
    monkeypatch.setattr(compare, "_run", lambda folder, workers: 1)
    assert call("compare", *SMALL) == 2
    assert set(tmp_path.iterdir()) == before
    assert capsys.readouterr().out.endswith(
        "compare-pairs was deleted, so that the next call may have other options.\n"
    )
    monkeypatch.setattr(compare, "_examine", lambda *_: 0)
    assert call("compare", *SMALL) == 1
    monkeypatch.setattr(compare, "_examine", examine)
    assert call("compare", *SMALL) == 2
    assert Path("compare-pairs/pipeline.yaml").is_file()


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()
    words = ["compare", *SMALL, "--reward", "0.5*length - regex:red", "--budget", "30m"]
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-m", "alignlab.cli", *words],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    done = Path("results/compare-pairs/stages")
    while child.poll() is None and not list(done.glob("dpo/*/done.json")):
        time.sleep(0.2)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    first = {path: path.stat().st_mtime for path in done.glob("*/*/done.json")}
    assert call(*words) == 0
    said = capfd.readouterr().out
    assert "continuing the comparison" in said
    assert "The first runs took dpo" in said
    settings, seeds = json.loads(Path("compare-pairs/compare.json").read_text())["size"]
    assert len(list(done.glob("simpo/*/done.json"))) == settings * seeds
    assert all(path.stat().st_mtime == before for path, before in first.items())
    answer = Path("results/compare-pairs/answer.txt").read_text()
    assert [line.partition(":")[0] for line in answer.splitlines()] == [
        *("Found", "Not resolved", "Settings")
    ]
    assert Path("results/compare-pairs/report.html").is_file()
    assert call(*words[:-2], "--seeds", "1") == 2
    assert "was begun with other options: --budget None" in capfd.readouterr().err


@pytest.mark.slow
def test_without_a_reward_held_out_pairs_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()
    assert call("compare", *SMALL, "--settings", "2", "--seeds", "1", "--out", "own") == 0
    said = capfd.readouterr().out
    assert "Accuracy: " in said
    assert "alignlab winrate --policy" in said
    assert "In results/own: answer.txt, accuracy.csv" in said
