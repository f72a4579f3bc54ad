import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts import command
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples
from tests.data.files import jsonl


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    build(dtype="float32").save(folder)
    return folder


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


def test_prints_completions_with_their_log_probs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--policy", str(folder), "--samples", "2", "--max-new-tokens", "3", "--seed", "1"]
    assert call(*words, "--prompt", " w4", "--prompt", " w9 w8") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert len(lines) == 8
    assert [line.split("|")[0] for line in lines[::2]] == [" w4", " w4", " w9 w8", " w9 w8"]
    assert all(" nats, " in line for line in lines[1::2])
    call(*words, "--prompt", " w4", "--prompt", " w9 w8")
    assert capsys.readouterr().out == printed


def test_a_prompt_that_goes_past_the_chat_template_is_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--max-new-tokens", "1", "--prompt", " w4", "--policy"]
    call(*words, str(folder))
    assert capsys.readouterr().err == ""
    policy = Policy.load(str(folder))
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    policy.save(tmp_path / "chat")
    call(*words, str(tmp_path / "chat"))
    said = capsys.readouterr()
    assert said.out.startswith(" w4|")
    assert said.err == f"{command.PLAIN}\n"
    (tmp_path / "rows.jsonl").write_text('{"prompt": [{"role": "user", "content": " w4"}]}\n')
    call(*words[:2], "--prompts", str(tmp_path / "rows.jsonl"), "--policy", str(tmp_path / "chat"))
    assert command.PLAIN not in capsys.readouterr().err


def test_writes_records_with_rewards(folder: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "deep" / "out.jsonl"
    prompts.write_text("".join(f'{{"prompt": " w{n}"}}\n' for n in (5, 6, 7)))
    reward = '{"class_path": "tests.rollouts.word_sum.WordSum", "init_args": {"modulus": 100}}'
    words = ["--policy", str(folder), "--max-new-tokens", "5", "--temperature", "0"]
    words += ["--prompts", str(prompts), "--limit", "2", "--reward", reward, "--out", str(out)]
    assert call(*words) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["prompt"] for record in records] == [" w5", " w6"]
    for record in records:
        own = sum(int(word[1:]) for word in record["completion"].split()) % 100
        assert record["reward"] == own
        assert record["logp"] < 0
        assert 1 <= record["tokens"] <= 5


def test_check_compares_every_log_prob_with_the_training_forward(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--policy", str(folder), "--prompt", " w4", "--max-new-tokens", "4", "--check"]
    assert call(*words) == 0
    assert "the training forward's to " in capsys.readouterr().out.splitlines()[0]

    def warm(*args: Any, **given: Any) -> Samples:
        return sample(*args, **(given | {"spec": SamplingSpec(temperature=0.5)}))

    monkeypatch.setattr("alignlab.rollouts.sampler.sample", warm)
    with pytest.raises(ConfigError, match="LlamaForCausalLM is sampled from another distribution"):
        call(*words)


def test_an_unknown_reward_is_told_before_the_model_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'no\.Such' cannot be found"):
        call("--policy", str(tmp_path / "absent"), "--prompt", "x", "--reward", "no.Such")


@pytest.mark.parametrize("reward", ["{class_path: x", "[1, 2]", "3"])
def test_a_reward_that_is_none_is_one_sentence(tmp_path: Path, reward: str) -> None:
    with pytest.raises(ConfigError, match=r"^reward .*(not YAML|is none of the known forms)"):
        call("--policy", str(tmp_path / "absent"), "--prompt", "x", "--reward", reward)


@pytest.mark.parametrize("out", ["/proc/x/out.jsonl", "{tmp_path}"])
def test_an_output_that_cannot_be_written_is_told_before_the_model_loads(
    tmp_path: Path, out: str
) -> None:
    words = ["--policy", str(tmp_path / "absent"), "--prompt", "x"]
    with pytest.raises(ConfigError, match=r"Name a (folder that can be written|file in it)\."):
        call(*words, "--out", out.format(tmp_path=tmp_path))


def test_declaring_the_options_imports_nothing_heavy() -> None:
    code = "import sys, alignlab.rollouts.command; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_conversation_is_shown_as_the_policy_reads_it_and_kept_as_a_row(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three rows one has no prompt, which is said; two columns nobody reads."""
    from transformers import AutoTokenizer

    talking = tmp_path / "policy"
    Policy.load(folder).save(talking)
    tokenizer = AutoTokenizer.from_pretrained(talking)
    tokenizer.chat_template = (
        "{% for m in messages %} w9 {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} w8{% endif %}"
    )
    tokenizer.save_pretrained(talking)
    turn = {"role": "user", "content": "w5"}
    whole = [turn, {"role": "assistant", "content": "w6"}]
    rows = [{"prompt": "w5", "chosen": whole, "rejected": [turn, {**turn, "role": "assistant"}]}]
    prompts = jsonl(tmp_path, [*rows, {"prompt": None, "chosen": whole, "rejected": whole}])
    words = ["--policy", str(talking), "--max-new-tokens", "2", "--prompts", str(prompts)]
    assert call(*words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(" w9 w5 w8|") or printed.out.startswith("<bos> w9 w5 w8|")
    assert f"{prompts}: 1 of 2 rows kept" in printed.err
    assert call(*words, "--out", str(tmp_path / "out.jsonl")) == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["prompt"] == [turn]
    assert record["completion"][0]["role"] == "assistant"
