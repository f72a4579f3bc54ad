import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alignlab.errors import ConfigError
from alignlab.models.policy import Policy
from alignlab.pipeline import run_experiment
from alignlab.results.csv_tables import read_table
from alignlab.winrate import command
from tests.data.files import jsonl
from tests.winrate.server import served

SUM = "tests.rollouts.word_sum.WordSum"


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


@pytest.mark.usefixtures("undrawn")
def test_prints_a_table_and_what_is_resolved(
    policies: dict[str, str], pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--policy={name}={folder}" for name, folder in policies.items()]
    words += ["--against", "rejected", "--prompts", str(pairs), "--reward", SUM]
    words += ["--max-new-tokens", "4", "--temperatures", "0,1", "--limit", "20"]
    assert call(*words, "--out", str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    lines = printed.split("\n")
    assert lines[0].split()[:4] == ["policy", "against", "T", "win"]
    assert [line.split()[:3] for line in lines[1:5]] == [
        [name, "rejected", t] for name in ("one", "two") for t in ("0", "1")
    ]
    assert "one against rejected: above 50 % at temperature 0, 1." in printed
    assert f"Texts side by side: {tmp_path / 'out' / 'winrate.html'}" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", SUM, "--judge-model", "m"], "--judge-model: only with --endpoint"),
        (["--endpoint", "http://x"], "--endpoint needs --judge-model and --question"),
        (["--person", "--yes"], "--yes: only with --endpoint"),
        (["+", "--price-in", "1"], "give both --price-in and --price-out"),
        (["+", "--concurrency", "0.5"], None),
        (["+", "--concurrency", "999"], "--concurrency must be 1 to 256, got 999"),
        (["+", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY: no such environment variable"),
        (["+", "--request", "[1]"], "expected a JSON object"),
        (["+", "--request", "{"], "expected a JSON object"),
        (["+", "--temperatures", "0,x"], None),
        (["+", "--price-in", "-1"], None),
        ([], None),
        (["--person", "--reward", SUM], None),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(
    tmp_path: Path, words: list[str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    served_judge = ["--endpoint", "http://x", "--judge-model", "m", "--question", "dialogue"]
    words = [w for word in words for w in (served_judge if word == "+" else [word])]
    given = ["--policy", "absent", "--against", "chosen", "--prompts", "absent.jsonl", *words]
    if message is None:
        with pytest.raises(SystemExit):
            call(*given, "--out", str(tmp_path))
    else:
        with pytest.raises(ConfigError, match=message):
            call(*given, "--out", str(tmp_path))


def test_calls_need_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match=r"nobody can confirm the calls here\. Add --yes"):
        command._confirmed()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for said, meant in (("y", True), ("", False), ("no", False), (" YES ", True)):
        monkeypatch.setattr("builtins.input", lambda _, said=said: said)
        assert command._confirmed() is meant


def test_declaring_the_options_imports_nothing_heavy() -> None:
    code = "import sys, alignlab.winrate.command; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_a_small_model_behind_the_api_decides_and_a_killed_call_goes_on(
    build: Callable[..., Policy],
    policies: dict[str, str],
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The judge is a tiny language model: the completion that it finds more likely is better.

    The command is killed with -9 while it asks, called again, and asks nothing twice.
    """
    model = build("gpt2", dtype="float32")
    lock, stuck, go_on = threading.Lock(), threading.Event(), threading.Event()
    replies = iter(range(1000))

    def likelihood(text: str) -> float:
        ids = torch.tensor([model.tokenizer(f"w3 {text}")["input_ids"]])
        with torch.no_grad():
            logps = model.model(ids).logits.log_softmax(-1)
        return float(logps[0, :-1].gather(1, ids[0, 1:, None]).mean())

    def rule(message: str) -> str:
        a, b = (message.split(f"Response {x}:\n")[1].split("\n\n")[0] for x in "AB")
        with lock:
            if next(replies) >= 20 and not go_on.is_set():
                stuck.set()
                go_on.wait(120)
                raise ConnectionAbortedError
            gain = likelihood(a) - likelihood(b)
            choice = "tie" if gain == 0 else "A" if gain > 0 else "B"
            return f"Comparison: numbers.\nMore helpful: {choice}"

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(rule) as server:
        words = ["--policy", f"one={policies['one']}", "--against", "chosen"]
        words += ["--prompts", str(pairs), "--endpoint", server.url, "--judge-model", "tiny"]
        words += ["--question", "dialogue", "--concurrency", "1", "--yes"]
        words += ["--temperatures", "0.5,1", "--max-new-tokens", "4", "--out", str(tmp_path)]
        command_line = [sys.executable, "-m", "alignlab.cli", "winrate", *words]
        with subprocess.Popen(command_line, env=dict(os.environ)) as running:
            assert stuck.wait(300)
            running.send_signal(signal.SIGKILL)
        go_on.set()
        assert len(server.answered) == 20
        assert call(*words) == 0
        assert len(server.answered) == len({*server.answered})
        asked = len(server.asked)
        assert call(*words) == 0
        assert len(server.asked) == asked
    rows = read_table(tmp_path / "winrates.csv")
    assert {row["judge"] for row in rows} == {"tiny"}
    assert {row["consistency"] for row in rows} == {"1"}  # it does not look at the order
    assert {row["n_matches"] for row in rows} == {"40"}


@pytest.mark.slow
def test_a_person_in_the_terminal(policies: dict[str, str], tmp_path: Path) -> None:
    prompts = jsonl(tmp_path, [{"prompt": " w4", "chosen": " w5", "rejected": " w6"}] * 1)
    words = ["--policy", f"one={policies['one']}", "--against", "chosen", "--person"]
    words += ["--prompts", str(prompts), "--temperatures", "0", "--max-new-tokens", "3"]
    line = [sys.executable, "-m", "alignlab.cli", "winrate", *words, "--out", str(tmp_path / "o")]
    done = subprocess.run(line, input="q\n", capture_output=True, text=True)
    assert done.returncode == 2
    assert "person decided none of 1 matches" in done.stderr
    done = subprocess.run(line, input="t\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--- 1 of 1 ---\nw4\n\nA: " in done.stdout
    assert read_table(tmp_path / "o" / "winrates.csv")[0]["ties"] == "1"


@pytest.mark.slow
def test_the_documentations_example_runs(tmp_path: Path) -> None:
    """On the policies of a smoke run."""
    page = (Path(__file__).parents[2] / "docs" / "winrate.md").read_text()
    lines = page.split("```bash\n")[1].split("```")[0].replace("\\\n", " ").split("\n")
    (example,) = (line for line in lines if line.startswith("alignlab winrate"))
    assert shlex.split(example) == shlex.split(command.EXAMPLE)
    results = tmp_path / "quickstart"
    run_experiment(Path("experiments/quickstart"), smoke=True, results=results, only="dpo")
    words = example.replace("results/quickstart", str(results))
    words = words.replace("--out ", f"--out {tmp_path}/")
    assert call(*shlex.split(words)[2:]) == 0
    rows = read_table(tmp_path / "winrate" / "winrates.csv")
    assert [(row["policy"], row["against"], row["temperature"]) for row in rows] == [
        ("dpo", "sft", t) for t in ("0", "0.25", "0.5", "0.75", "1")
    ]
    made = {path.name for path in (tmp_path / "winrate").iterdir()}
    assert made >= {f"winrate.{kind}" for kind in ("png", "svg", "pdf", "html")}
