"""``alignlab init``: what it writes can be trained as it is."""

import json
import random
from pathlib import Path

import pytest

from alignlab import cli
from alignlab.stages.policies import make_up_policy
from alignlab.start import fill

TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
}


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def text(rng: random.Random, words: int) -> str:
    return "".join(f" {rng.choice(['old', 'new', 'red', 'train', 'house'])}" for _ in range(words))


def write_files(rows: int = 120) -> None:
    """A tiny model ``m``, and rows of each kind."""
    make_up_policy(out="m", config=TINY, chat_format="llama3")
    rng = random.Random(0)
    files: dict[str, list[object]] = {"pairs": [], "judged": [], "messages": []}
    for k in range(rows):
        prompt, good, bad = f"Tell{text(rng, 2)} {k}:", text(rng, 5), text(rng, 2)
        files["pairs"].append({"prompt": prompt, "chosen": good, "rejected": bad})
        label = "desirable" if k % 2 else "undesirable"
        files["judged"].append({"prompt": prompt, "completion": good, "label": label})
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": good}]
        files["messages"].append({"messages": turns})
    for name, lines in files.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def test_what_was_written_and_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "own", "--from", "kto", "--lr", "1e-5") == 0
    assert capsys.readouterr().out == (
        "own is written. Write your model's folder or hub id in place of my/model in its files, "
        "then: alignlab fit --config own/kto.yaml\n"
    )
    assert "my/model" in Path("own/kto.yaml").read_text()
    assert call("init", "named", "--from", "dpo", "--policy", "m") == 0
    assert capsys.readouterr().out == (
        "named is written. Next: alignlab fit --config named/dpo.yaml\n"
    )
    stage = Path("own/kto.yaml").read_text()
    assert "lr: 1e-05" in stage
    assert "source: judged.jsonl" in stage
    assert call("init", "own", "--from", "dpo") == 2
    assert "own: it exists already" in capsys.readouterr().err
    assert call("init", "other", "--from", "dpo", "--reward", "my_reward.py") == 2
    assert "name the function in the file" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice
@pytest.mark.parametrize("kind", fill.KINDS)
def test_every_template_runs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()
    data = {"kto": "judged.jsonl", "sft-chat": "messages.jsonl"}.get(kind, "pairs.jsonl")
    words = ["--policy", "m", "--data", data, "--steps", "2", "--batch", "8"]
    words += ["--max-length", "128", "--new-tokens", "4"]
    assert call("init", "own", "--from", kind, *words) == 0
    stage = {"sft-chat": "sft", "compare": "pipeline"}.get(kind, kind)
    if kind == "compare":
        assert call("run", "own", "--workers", "1", "--seeds", "0") == 0
        assert Path("results/own/report.html").is_file()
    else:
        assert call("fit", "--config", f"own/{stage}.yaml") == 0
        assert Path("results/own/lightning_logs/version_0/model/config.json").is_file()
