"""The short forms of a reward: what each stands for, and that every place takes them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaForSequenceClassification

from alignlab.errors import ConfigError
from alignlab.pipeline.calls import check_call
from alignlab.plan import content, overlay
from alignlab.rewards.spec import as_class, options_with_classes, with_classes
from alignlab.training import fit
from alignlab.training.before_start import construct
from tests.rewards.test_model import save_tiny

LENGTH = {"class_path": "alignlab.rewards.rule.Length"}
SCORE = "def score(prompts, completions):\n    return [len(text) for text in completions]\n"


def made(path: str, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"alignlab.rewards.{path}", "init_args": arguments}


FUNCTION = made("given.FunctionReward", file="my_reward.py", name="score")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("length", LENGTH),
        (" length ", LENGTH),
        ("regex:a|b", made("rule.Matches", pattern="a|b")),
        ("regex:(?i)yes: sir", made("rule.Matches", pattern="(?i)yes: sir")),
        ("my_reward.py:score", FUNCTION),
        ("a/b.py:S", made("given.FunctionReward", file="a/b.py", name="S")),
        ("package.module.Class", {"class_path": "package.module.Class"}),
        ("Org/reward-model-1.5", made("given.Scorer", path="Org/reward-model-1.5")),
        ("{judge}", made("given.Scorer", path="{judge}")),
        ("{judge-s0}", made("given.Scorer", path="{judge-s0}")),
        (
            "{experiment}/r.py:score",
            made("given.FunctionReward", file="{experiment}/r.py", name="score"),
        ),
        (
            "0.7*{judge} + .3*my_reward.py:score",
            made(
                "given.WeightedSum",
                rewards=[made("given.Scorer", path="{judge}"), FUNCTION],
                weights=[0.7, 0.3],
            ),
        ),
        (
            "Org/a-b - 1e-2 * length + length",
            made(
                "given.WeightedSum",
                rewards=[made("given.Scorer", path="Org/a-b"), LENGTH, LENGTH],
                weights=[1.0, -0.01, 1.0],
            ),
        ),
        ("-1*length", made("given.WeightedSum", rewards=[LENGTH], weights=[-1.0])),
    ],
)
def test_each_form(text: str, meant: dict[str, Any]) -> None:
    assert as_class(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lengths", "reward 'lengths' is none of the known forms. Write length, regex:"),
        ("my_reward.py", "name the function in the file, as in my_reward.py:score"),
        ("regex:(", "reward 'regex:\\(': not a regular expression: missing \\)"),
        ("0.5*lengths + length", "reward '0.5\\*lengths .*': 'lengths' is none of the known forms"),
        ("2*lengths", "'lengths' is none of the known forms"),
    ],
)
def test_what_is_none_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        as_class(text)


def test_a_folder_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge").mkdir()
    assert as_class("judge") == made("given.Scorer", path="./judge")


def test_names_that_users_choose_are_no_rewards() -> None:
    """A policy may be called as an argument is; a reward below its name still is one."""
    kept = {"proposals": {"gold": "{ppo}", "proxy": "a/b"}, "args": {"policies": {"reward": "c/d"}}}
    assert with_classes(kept) == kept
    variant = {"variants": {"gold": {"model": "m", "reward": "length"}}}
    assert with_classes(variant)["variants"]["gold"] == {"model": "m", "reward": LENGTH}


def test_only_values_of_rewards_change() -> None:
    given = {
        "metrics": {"reward": "maximize", "length": "minimize"},  # a sweep's
        "set": {"model.init_args.reward": "length", "probe": {"proxy": None, "limit": 3}},
        "grid": {"probe.reward": ["length", "my_reward.py:score"]},
        "stages": [{"args": {"gold": LENGTH, "source": "length"}}],
    }
    found = with_classes(given)
    assert found["metrics"] == given["metrics"]
    assert found["set"] == {"model.init_args.reward": LENGTH, "probe": {"proxy": None, "limit": 3}}
    assert found["grid"] == {"probe.reward": [LENGTH, FUNCTION]}
    assert found["stages"] == given["stages"]


@pytest.mark.parametrize("text", ["{'class_path': 'my.Reward', 'path': 'a/b'}", "[a/b, length]"])
def test_text_that_is_yaml_is_left_to_the_parser(text: str) -> None:
    assert with_classes({"reward": text}) == {"reward": text}
    assert options_with_classes(["--model.reward", text]) == ["--model.reward", text]


def test_options_in_both_spellings() -> None:
    words = ["--probe.reward", "length", "--model.init_args.reward=0.5*length", "--x", "length"]
    first, second, third, *rest = options_with_classes(words)
    assert (first, yaml.safe_load(second)) == ("--probe.reward", LENGTH)
    option, _, value = third.partition("=")
    assert option == "--model.init_args.reward"
    assert yaml.safe_load(value)["init_args"]["weights"] == [0.5]
    assert rest == ["--x", "length"]


STAGE = """\
model:
  class_path: alignlab.objectives.rloo.RLOO
  init_args:
    policy: {source: m}
    reward: 0.5*my_reward.py:score - length
    sampling: {max_new_tokens: 4}
    optimizer: {class_path: torch.optim.AdamW}
data:
  class_path: alignlab.data.rollout_data.RolloutData
  init_args: {source: p.jsonl, rollout_size: 2, batch_size: 2}
trainer: {max_steps: 1, logger: false}
probe:
  {prompts: p.jsonl, reward: my_reward.py:score, samples: 1, max_new_tokens: 4, every_n_steps: 1}
"""


def test_stages_options_and_calls_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_reward.py").write_text(SCORE)
    Path("stage.yaml").write_text(STAGE)
    save_tiny(tmp_path / "rm", LlamaForSequenceClassification, num_labels=1)
    command = fit.Command(["--config", "stage.yaml", "--probe.proxy", "0.5*./rm"])
    config = command.config
    assert config.model.init_args.reward.class_path == "alignlab.rewards.given.WeightedSum"
    assert config.probe.init_args.reward.init_args.name == "score"
    probe = construct(command, "probe").probe
    assert probe.reward(["p"], [" abc"]).tolist() == [4]
    half, whole = probe.proxy(["a"], [" b"]), probe.proxy.rewards[0](["a"], [" b"])
    assert half.tolist() == [0.5 * whole.item()]
    read = overlay.read_yaml(Path("stage.yaml"))
    fit.check(read)
    args = {"reference": "m", "prompts": "p", "samples": 1, "max_new_tokens": 1, "seed": 0}
    stages = with_classes({"args": {**args, "reward": "./rm", "proxy": "length"}})
    check_call("alignlab.stages.pool_sampling.draw_pool", stages["args"])
    Path("my_reward.py").unlink()  # a file that is not there is said before any stage starts
    with pytest.raises(ConfigError, match=r"there is no file my_reward\.py"):
        fit.check(read)


def test_a_changed_function_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file counts, and so does a module of the user's that the file imports."""
    monkeypatch.chdir(tmp_path)
    Path("my_reward.py").write_text("import my_words\n" + SCORE)
    Path("my_words.py").write_text("GOOD = 1\n")
    spec = as_class("0.5*my_reward.py:score + length")
    hashes = [content.by_content(spec)]
    for name in ("my_words.py", "my_reward.py"):
        Path(name).write_text(Path(name).read_text() + "MORE = 2\n")
        hashes.append(content.by_content(spec))
    assert hashes[0] != hashes[1] != hashes[2]


def test_reading_them_costs_no_import_of_torch() -> None:
    code = "import sys, alignlab.plan.overlay; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
