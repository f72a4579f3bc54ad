import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from alignlab.chat import command
from alignlab.errors import ConfigError
from alignlab.models.policy import Policy


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


@pytest.fixture
def folder(build: Callable[..., Policy], tmp_path: Path) -> Path:
    build(dtype="float32").save(tmp_path / "plain")
    return tmp_path / "plain"


def test_talks_and_keeps_a_preference(
    folder: Path,
    build: Callable[..., Policy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build("gpt2", dtype="float32").save(tmp_path / "other")
    words = iter(["w4 w9", "2", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(words))
    save = tmp_path / "pairs.jsonl"
    options = ["--max-new-tokens", "5", "--temperature", "0", "--save", str(save)]
    assert call(str(folder), "--beside", str(tmp_path / "other"), *options) == 0
    shown = capsys.readouterr().out
    assert "has no chat template: each message is a text that it continues." in shown
    assert f"1 preferences were added to {save}" in shown
    assert len(save.read_text().splitlines()) == 1


def test_policies_of_two_kinds_are_refused(
    folder: Path, build: Callable[..., Policy], tmp_path: Path
) -> None:
    chats = build(dtype="float32")
    chats.tokenizer.chat_template = "{{ messages[0].content }}"
    chats.save(tmp_path / "chats")
    with pytest.raises(ConfigError, match=r"plain has no chat template and the other policy has"):
        call(str(folder), "--beside", str(tmp_path / "chats"), "--save", str(tmp_path / "x"))


def test_options_that_cannot_be_used_are_refused(folder: Path, tmp_path: Path) -> None:
    save = ["--save", str(tmp_path / "x")]
    with pytest.raises(ConfigError, match=r"--system: .* has no chat template"):
        call(str(folder), "--system", "Be brief.", *save)
    with pytest.raises(ConfigError, match="--max-new-tokens 0: expected at least 1"):
        call(str(folder), "--max-new-tokens", "0", *save)


def test_tools_that_no_template_renders_are_refused(
    folder: Path, build: Callable[..., Policy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    save, tools = ["--save", str(tmp_path / "x")], tmp_path / "tools.json"
    chats = build(dtype="float32")
    for name, template in {"deaf": "", "hears": "{{ tools }}"}.items():
        chats.tokenizer.chat_template = template + "{{ messages[0].content }}"
        chats.save(tmp_path / name)
    for text, said in {
        "{": "cannot be read as JSON",
        "{}": "list of tools",
        "[1]": "each an",
    }.items():
        tools.write_text(text)
        with pytest.raises(ConfigError, match=said):
            call(str(tmp_path / "hears"), "--tools", str(tools), *save)
    tools.write_text('[{"name": "weather"}]')
    with pytest.raises(ConfigError, match=r"--tools: .*plain has no chat template"):
        call(str(folder), "--tools", str(tools), *save)
    with pytest.raises(
        ConfigError, match=r"--tools: .*deaf: chat template does not render 'tools'"
    ):
        call(str(tmp_path / "deaf"), "--tools", str(tools), *save)
    assert call(str(tmp_path / "hears"), "--tools", str(tools), *save) == 0
