"""A reward is one file: a class that alignlab has never seen scores samples and trains a policy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alignlab import cli
from alignlab.models.policy import Policy
from alignlab.results.prompt_tables import read_scores
from alignlab.results.run_folder import evaluations_in

REWARD = '''
import torch


class Short:
    """How much shorter than 8 words a completion is."""

    def __init__(self, longest: int = 8):
        self.longest = longest

    def __call__(self, prompts, completions):
        return torch.tensor([float(self.longest - len(text.split())) for text in completions])
'''


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice
def test_a_new_reward_is_one_file(
    build: Callable[..., Policy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "short.py").write_text(REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    build().save("policy")
    rows = [{"prompt": f" w{i}"} for i in range(3, 19)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = {"class_path": "short.Short", "init_args": {"longest": 6}}
    config = {
        "model": {
            "class_path": "alignlab.objectives.rloo.RLOO",
            "init_args": {
                "policy": {"source": "policy"},
                "reward": reward,
                "sampling": {"max_new_tokens": 6},
                "kl_coef": 0.01,
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05}},
            },
        },
        "data": {
            "class_path": "alignlab.data.rollout_data.RolloutData",
            "init_args": {
                "source": "prompts.jsonl",
                "rollout_size": 16,
                "batch_size": 16,
                "samples_per_prompt": 8,
                "inner_epochs": 1,
            },
        },
        "trainer": {
            "max_steps": 12,
            "default_root_dir": "run",
            "accelerator": "cpu",
            "logger": False,
        },
        "probe": {
            "prompts": "prompts.jsonl",
            "reward": reward,
            "samples": 8,
            "max_new_tokens": 6,
            "every_n_steps": 12,
        },
    }
    Path("short.yaml").write_text(yaml.safe_dump(config))
    assert run(["fit", "--config", "short.yaml"]) == 0, capsys.readouterr().err
    scores = read_scores(evaluations_in(Path("run"))[-1].scores)
    assert scores.reward.mean() > 4  # completions of fewer than two words
    capsys.readouterr()
    words = ["sample", "--policy", "policy", "--reward", "short.Short", "--prompt", " w3"]
    words += ["--max-new-tokens", "6"]
    assert run(words) == 0
    assert "reward " in capsys.readouterr().out


def run(words: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    return ended.value.code
