import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from alignlab.data.rows import Demonstration, Prompt
from alignlab.data.sources import read_rows
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.stages.best import make_demonstrations
from alignlab.stages.completed import Completed, Completions, Tally

SUM = {"class_path": "tests.rollouts.word_sum.WordSum"}
FEW = {"class_path": "tests.rollouts.word_sum.WordSum", "init_args": {"modulus": 3}}


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved policy and 20 prompts for it."""
    folder = tmp_path_factory.mktemp("best")
    build(dtype="float32", spread=0.1).save(folder / "policy")
    lines = [json.dumps({"prompt": f" w{3 + i} w{5 + i // 2}"}) for i in range(20)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def run(folder: Path, out: Path, **changes: Any) -> tuple[list[Demonstration], dict[str, Any]]:
    out.mkdir()
    settings: dict[str, Any] = {"reward": SUM, "max_new_tokens": 4, "n": 6}
    make_demonstrations(
        out=out,
        policy=str(folder / "policy"),
        prompts=str(folder / "prompts.jsonl"),
        **(settings | changes),
    )
    rows, _ = read_rows(str(out / "demonstrations.jsonl"), Demonstration)
    return rows, json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize("reward", [SUM, FEW])
def test_the_first_of_the_best_is_kept(folder: Path, tmp_path: Path, reward: Any) -> None:
    """Against a loop over the same draws; with remainders of 3 ties are the rule."""
    rows, summary = run(folder, tmp_path / "out", reward=reward, n=3, per_prompt=2)
    again = Completed(str(folder / "policy"), str(folder / "prompts.jsonl"), reward, None, 4, True)
    expected: list[tuple[str, bool]] = []
    total = 0.0
    for _, _, own in again.draw(6, SamplingSpec(), 0, 256, Tally()):
        scores = own.rewards.tolist()
        for some in (range(3), range(3, 6)):
            best = next(k for k in some if scores[k] == max(scores[j] for j in some))
            total += scores[best]
            if own.texts[best].strip():
                expected.append((own.texts[best], own.finished[best]))
    assert [(row.completion, row.ends) for row in rows] == expected
    assert reward is SUM or {ends for _, ends in expected} == {True, False}
    assert summary["best_reward_mean"] == pytest.approx(total / 40)
    assert summary["best_reward_mean"] > summary["reward_mean"]
    assert summary["demonstrations"] == len(rows) == 40 - summary["dropped"]["an empty completion"]


def test_every_demonstration_answers_its_own_prompt(folder: Path, tmp_path: Path) -> None:
    rows, _ = run(folder, tmp_path / "out", n=1)
    prompts, _ = read_rows(str(folder / "prompts.jsonl"), Prompt)
    wanted = {row.prompt for row in prompts}
    assert {row.prompt for row in rows} <= wanted
    assert len(rows) > 10


def test_bad_settings_say_what_to_do(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="n and per_prompt >= 1, got 0"):
        run(folder, tmp_path / "none", n=0)
    silence = Completions([" "], [True], torch.zeros(1)), Prompt("a", " w3")

    def draw(self: Completed, *settings: Any) -> Iterator[tuple[Prompt, int, Completions]]:
        settings[-1].count(silence[0], self.trees[0])
        yield silence[1], 0, silence[0]

    monkeypatch.setattr(Completed, "draw", draw)
    with pytest.raises(DataError, match="all 1 best completions are empty"):
        run(folder, tmp_path / "empty", n=1)
