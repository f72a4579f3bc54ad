"""``alignlab export``: folders that work without alignlab, and what is not exported."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignlab import export as module
from alignlab.callbacks.checkpoints import is_whole
from alignlab.errors import ConfigError
from alignlab.evaluation.prompts import load_prompts
from alignlab.export import TOLERANCE, Check
from alignlab.files import changed_in, seal
from alignlab.models import Policy, ScoreModel
from alignlab.models.loading import load_model
from alignlab.results.model_card import read_run
from alignlab.results.run_folder import Evaluation
from tests.test_cli import call

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")
DPO, RM = "alignlab.objectives.dpo.DPO", "alignlab.objectives.rm.RewardModel"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Policy]) -> Path:
    """A language model with a chat template and a second token that ends a completion."""
    folder = tmp_path_factory.mktemp("base")
    policy = build(dtype="float32")
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    policy.model.generation_config.eos_token_id = [2, 7]
    policy.save(folder)
    pairs = [{"prompt": f" w{i}", "chosen": " w5 w5", "rejected": " w6 w6"} for i in range(8, 16)]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    return folder


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Callable[..., Path]:
    """Trains for four steps on pairs that prefer w5, with a checkpoint after every other."""

    def train(objective: str, model: dict[str, Any], **more: Any) -> Path:
        folder = tmp_path_factory.mktemp("run")
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.03}}
        every = {"every_n_train_steps": 2, "save_top_k": -1, "dirpath": str(folder / "steps")}
        saving = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": every}
        config: dict[str, Any] = {
            "model": {"class_path": objective, "init_args": {**model, "optimizer": optimizer}},
            "data": {
                "class_path": "alignlab.data.modules.PreferenceData",
                "init_args": {"source": str(base / "pairs.jsonl"), "batch_size": 8},
            },
            "trainer": {
                "max_steps": 4, "accelerator": "cpu", "logger": False, "callbacks": [saving],
                "default_root_dir": str(folder), "enable_progress_bar": False,
            },
            "seed_everything": 7,
        }  # fmt: skip
        (folder / "stage.yaml").write_text(yaml.safe_dump(config | more))
        assert call("fit", "--config", str(folder / "stage.yaml")) == 0
        return folder

    return train


@pytest.fixture(scope="module")
def full(fit: Callable[..., Path], base: Path) -> Path:
    """DPO of all weights, measured by a probe."""
    probe = {
        "prompts": str(base / "pairs.jsonl"),
        "reward": {"class_path": "tests.training.test_lone_run.Fives"},
        "samples": 4,
        "max_new_tokens": 3,
        "every_n_steps": 2,
    }
    return fit(DPO, {"policy": {"source": str(base)}, "beta": 0.3}, probe=probe)


@pytest.fixture(scope="module")
def adapted(fit: Callable[..., Path], base: Path) -> Path:
    """DPO of adapters on a model in a folder of its own."""
    folder = fit(DPO, {"policy": {"source": str(base), "lora": {"rank": 2, "alpha": 8}}})
    own = GenerationConfig.from_pretrained(folder / "model", eos_token_id=[2, 7, 9])
    own.save_pretrained(folder / "model")
    seal(folder / "model")
    return folder


@pytest.fixture(scope="module")
def scorer(fit: Callable[..., Path], base: Path) -> Path:
    """A reward model whose unit was changed after training."""
    folder = fit(RM, {"model": {"source": str(base)}})
    model = ScoreModel.load(folder / "model")
    model.shift, model.scale = 0.25, 2.0
    model.save(folder / "model")
    seal(folder / "model")
    return folder


def export(*words: str | Path) -> int:
    return call("export", *map(str, words))


def row_logps(folder: Path) -> list[float]:
    """Log-probs of a row's tokens but the first, by transformers in float64."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    ids = torch.tensor([ROW])
    with torch.no_grad():
        logps = model(ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(-1, ids[0, 1:, None])[:, 0].tolist()


ROW = [1, 9, 5, 5, 20, 31, 2]
ELSEWHERE = """
import json, sys
sys.modules["alignlab"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
row, *folders = json.loads(sys.argv[1])
found = []
for folder in folders:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": " w9"}]
    inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0].tolist()
    ids = torch.tensor([row])
    with torch.no_grad():
        logps = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    ends = model.generation_config.eos_token_id
    found.append({"written": written, "logps": logps.tolist(), "ends": ends})
print(json.dumps(found))
"""


@pytest.mark.slow
def test_folders_load_and_generate_where_there_is_no_alignlab(
    full: Path, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("full", "adapters", "merged")]
    assert export(full, "--out", folders[0]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Exported {full}. Model: {folders[0]}\n")
    assert "Loaded again by transformers alone, log-probs are the run's to " in said
    assert export(adapted, "--out", folders[1]) == 0
    assert export(adapted, "--out", folders[2], "--merge") == 0
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, json.dumps([ROW, *map(str, folders)])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    runs = (full, [2, 7]), (adapted, [2, 7]), (adapted, [2, 7, 9])  # adapters' own are not read
    for found, (run, ends) in zip(json.loads(done.stdout), runs, strict=True):
        policy = Policy.load(run / "model", dtype="float64", dropout=None).eval()
        assert found["logps"] == pytest.approx(own_logps(policy), abs=1e-6)
        assert found["written"][:1] == [9]
        assert 1 < len(found["written"]) <= 6
        assert found["ends"] == ends


def own_logps(policy: Policy) -> list[float]:
    """What the run's own model gives, beside the library's float32 norms."""
    from alignlab.data.trees import PromptTree, collate

    with torch.no_grad():
        tree = PromptTree(0, "row", (ROW[0],), (tuple(ROW[1:]),))
        return policy(collate([tree])).token_logps[0].tolist()


def test_the_card_is_what_the_run_recorded(full: Path, base: Path, tmp_path: Path) -> None:
    from alignlab.results.prompt_tables import read_scores

    assert export(full, "--out", tmp_path / "mine") == 0
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["tags"] == ["alignlab", "dpo"]
    assert "base_model" not in data  # which must be a hub id
    record = data["alignlab"]
    config = yaml.safe_load((full / "config.yaml").read_text())
    assert record["base_model"] == config["model"]["init_args"]["policy"]["init_args"]["source"]
    assert record["data"] == str(base / "pairs.jsonl")
    wanted = {
        "beta": 0.3, "optimizer": "AdamW", "optimizer.lr": 0.03, "data.batch_size": 8,
        "trainer.max_steps": 4, "seed_everything": 7, "policy.dtype": "float32",
    }  # fmt: skip
    assert {name: record["settings"][name] for name in wanted} == wanted
    means = read_scores(Evaluation(full, 4).scores).means()
    assert record["evaluation"]["step"] == 4
    assert record["evaluation"]["reward"] == pytest.approx(means["reward"])
    assert record["evaluation"]["kl"] == pytest.approx(means["kl"])
    assert (record["evaluation"]["prompts"], record["evaluation"]["samples"]) == (8, 32)
    assert record["versions"]["torch"] == torch.__version__
    fives = "tests.training.test_lone_run.Fives"
    assert f"the reward by `{fives}` was {means['reward']:.4g} ± " in card.content
    assert "reward" not in record  # of a run on pairs
    assert (tmp_path / "mine" / "sealed.json").exists()
    assert changed_in(tmp_path / "mine") == []
    assert 'AutoModelForCausalLM.from_pretrained("mine")' in card.content
    assert "apply_chat_template" in card.content


def test_a_text_of_the_card_begins_as_rows_do(words: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(words)
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": " w5 w6"}')
    row = list(load_prompts(path, tokenizer)[0].prompt)
    assert tokenizer(" w5 w6").input_ids == row[1:]  # the tokenizer alone leaves it out
    assert tokenizer(module._begins(tokenizer) + " w5 w6").input_ids == row
    tokenizer.bos_token = None
    assert module._begins(tokenizer) == ""


def test_a_checkpoint_of_a_step_is_exported(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = full / "steps" / "epoch=1-step=2.ckpt"
    assert export(full, "--ckpt", ckpt, "--out", tmp_path / "two") == 0
    assert f"Exported {full}, step 2. Model: " in capsys.readouterr().out
    saved = torch.load(ckpt, weights_only=True)["state_dict"]
    written = load_file(tmp_path / "two" / "model.safetensors")
    assert written
    for name, weight in written.items():
        assert torch.equal(saved[f"policy.model.{name}"], weight)
    last = load_file(full / "model" / "model.safetensors")
    assert any(not torch.equal(last[name], weight) for name, weight in written.items())
    record = ModelCard.load(tmp_path / "two" / "README.md").data.to_dict()["alignlab"]
    assert (record["step"], record["evaluation"]["step"]) == (2, 2)
    assert export(full, "--ckpt", full / "last.ckpt", "--out", tmp_path / "four") == 0
    again = load_file(tmp_path / "four" / "model.safetensors")
    assert all(torch.equal(last[name], weight) for name, weight in again.items())


@pytest.mark.parametrize(("step", "ends"), [(None, 3), (2, 2)])
def test_merged_weights_are_those_of_base_and_adapters(
    adapted: Path, base: Path, tmp_path: Path, step: int | None, ends: int
) -> None:
    if step is None:
        state = load_file(adapted / "model" / "adapter_model.safetensors")
        assert export(adapted, "--merge", "--out", tmp_path / "out") == 0
    else:
        ckpt = adapted / "steps" / "epoch=1-step=2.ckpt"
        saved = torch.load(ckpt, weights_only=True)["state_dict"]
        state = {k.removeprefix("policy.model.").replace(".default.", "."): w
                 for k, w in saved.items()}  # fmt: skip
        assert export(adapted, "--merge", "--ckpt", ckpt, "--out", tmp_path / "out") == 0
    merged = load_file(tmp_path / "out" / "model.safetensors")
    old = load_file(base / "model.safetensors")
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    changed = 0
    for name, weight in old.items():
        path = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = weight.double()
        if f"{path}.lora_A.weight" in state:
            a, b = (state[f"{path}.lora_{x}.weight"].double() for x in "AB")
            wanted = wanted + b @ a * (8 / 2)
            changed += 1
        assert torch.equal(merged[name], wanted.float())
    assert changed == 14
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [2, 7, 9][:ends]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_adapters_bring_a_base_that_is_nowhere_else(
    fit: Callable[..., Path], words: Path, tmp_path: Path
) -> None:
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8,
              "num_hidden_layers": 1, "num_attention_heads": 2}  # fmt: skip
    policy = {"config": config, "tokenizer": str(words), "lora": {"rank": 2}}
    run = fit(DPO, {"policy": policy})
    wanted = own_logps(Policy.load(run / "model", dtype="float64").eval())
    assert export(run, "--out", tmp_path / "final") == 0
    assert export(run, "--out", tmp_path / "last", "--ckpt", run / "last.ckpt") == 0
    (run / "model").rename(run / "gone")
    for name in ("final", "last"):
        settings = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(tmp_path / name / "base")
        assert row_logps(tmp_path / name) == pytest.approx(wanted, abs=1e-6)
        card = ModelCard.load(tmp_path / name / "README.md")
        assert card.data.to_dict()["library_name"] == "peft"
        assert f'.from_pretrained("{tmp_path / name / "base"}", dtype="float32")' in card.content
        assert f'GenerationConfig.from_pretrained("{name}")' in card.content


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test reads a model by the libraries alone, codes of 4 bits are decoded.

    With AVX512_BF16, bitsandbytes would repack them for a kernel that needs 32 outputs or more,
    which these models do not have, and that computes in bfloat16.
    """
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dora": (DPO, {"lora": {"rank": 2, "dora": True}}),
    "virtual tokens": (DPO, {"prompt_tuning": {"tokens": 3}}),
    "added tokens": (DPO, {"lora": {"rank": 2}, "chat_format": "llama3"}),
    "4 bits": (DPO, {"lora": {"rank": 2}, "quantised": {"double": True}}),
    "bfloat16": (DPO, {"lora": {"rank": 2}, "dtype": "bfloat16"}),
    "scorer": (RM, {"lora": {"rank": 2}}),
}


@pytest.mark.usefixtures("decoded")
@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # peft's, of its own call
@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_code_in_a_card_loads_any_adapters(
    fit: Callable[..., Path], base: Path, tmp_path: Path, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    objective, arguments = ADAPTERS[kind]
    source = str(base)
    if kind == "added tokens":  # the format needs a tokenizer without a template
        copytree(base, tmp_path / "base")
        (tmp_path / "base" / "chat_template.jinja").unlink()
        source = str(tmp_path / "base")
    name = "model" if objective == RM else "policy"
    run = fit(objective, {name: {"source": source, **arguments}})
    for out, more in (("plain", ()), ("step", ("--ckpt", run / "last.ckpt"))):
        assert export(run, "--out", tmp_path / out, *more) == 0
    merges = kind != "virtual tokens"
    assert export(run, "--merge", "--out", tmp_path / "merged") == (0 if merges else 2)
    monkeypatch.chdir(tmp_path)
    for out in ("plain", "merged") if merges else ("plain",):
        code = ModelCard.load(tmp_path / out / "README.md").content
        names: dict[str, Any] = {}
        exec(code.split("```python\n")[1].split("```")[0], names)
        check = Check(module._finished(read_run(run)), arguments.get("dtype", "float32"))
        if out == "plain":
            check.gap(check.read(names["model"]), out)


def test_values_that_share_the_policy_are_left_out(
    fit: Callable[..., Path], base: Path, tmp_path: Path
) -> None:
    data = {
        "class_path": "alignlab.data.rollout_data.RolloutData",
        "init_args": {"source": str(base / "pairs.jsonl"), "rollout_size": 8, "batch_size": 8},
    }
    model = {
        "policy": {"source": str(base), "lora": {"rank": 2}},
        "value": "adapter",
        "reward": {"class_path": "tests.training.test_lone_run.Fives"},
        "sampling": {"max_new_tokens": 3},
    }
    run = fit("alignlab.objectives.ppo.PPO", model, data=data)
    assert export(run, "--out", tmp_path / "final") == 0
    assert export(run, "--ckpt", run / "last.ckpt", "--out", tmp_path / "last") == 0
    final, last = (load_file(tmp_path / out / "adapter_model.safetensors")
                   for out in ("final", "last"))  # fmt: skip
    assert final.keys() == last.keys()
    assert all(torch.equal(weight, last[name]) for name, weight in final.items())


def test_a_model_from_its_config_is_what_it_is_when_loaded(
    fit: Callable[..., Path], words: Path, tmp_path: Path
) -> None:
    """Rotary frequencies are no weights: rounded with them, they are other ones than loaded."""
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8,
              "num_hidden_layers": 1, "num_attention_heads": 2}  # fmt: skip
    run = fit(DPO, {"policy": {"config": config, "tokenizer": str(words), "dtype": "bfloat16"}})
    assert export(run, "--ckpt", run / "last.ckpt", "--out", tmp_path / "out") == 0


def test_a_scorers_unit_is_in_its_card(
    scorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(scorer, "--out", tmp_path / "out") == 0
    assert "Loaded again by transformers alone, scores are the run's to " in capsys.readouterr().out
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "text-classification"
    assert "score = (logits - 0.25) / 2.0" in card.content
    assert "AutoModelForSequenceClassification" in card.content


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("what", [DPO, RM])
def test_adapters_on_weights_in_4_bits(
    fit: Callable[..., Path], base: Path, tmp_path: Path, what: str
) -> None:
    """The card's own lines load what the run trained; merged, it is a whole model of the same."""
    keys = {"source": str(base), "lora": {"rank": 2, "dora": True}, "quantised": {"double": False}}
    run = fit(what, {"policy" if what == DPO else "model": keys})
    assert export(run, "--out", tmp_path / "out") == 0
    assert export(run, "--merge", "--out", tmp_path / "merged") == 0
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "bnb_4bit_use_double_quant=False" in code
    read: dict[str, Any] = {}
    exec(code.split("tokenizer =")[0].replace('"out"', repr(str(tmp_path / "out"))), read)
    kind = Policy if what == DPO else ScoreModel
    models = [kind.load(run / "model").model, kind.load(tmp_path / "merged").model, read["model"]]
    with torch.no_grad():
        ours, merged, theirs = (model.eval()(torch.tensor([ROW])).logits for model in models)
    assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert_close(merged, ours, rtol=0, atol=1e-4)


def test_a_job_of_a_pipeline_is_exported(full: Path, tmp_path: Path) -> None:
    from alignlab.files import write_record

    job = tmp_path / "stages" / "dpo" / "beta0.3-s0"
    copytree(full / "model", job, ignore=lambda *_: {"sealed.json"})
    (job / "train").mkdir()
    (job / "train" / "config.yaml").write_text((full / "config.yaml").read_text())
    copytree(full / "points", job / "train" / "points")
    write_record(job / "job.json", {"config_sha": "abc"})
    assert export(job, "--out", tmp_path / "early") == 2
    write_record(job / "done.json", {"config_sha": "abc", "files": {}})
    assert export(job) == 0
    record = ModelCard.load(job / "export" / "README.md").data.to_dict()["alignlab"]
    assert (record["run"], record["config_sha"]) == ("beta0.3-s0", "abc")
    assert record["evaluation"]["step"] == 4
    assert row_logps(job / "export") == row_logps(full / "model")


def test_what_was_exported_and_is_not_the_runs_is_not_kept(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Policy.save

    def spoil(self: Policy, path: Path) -> None:
        before = self.model.lm_head.weight.detach().clone()
        self.model.lm_head.weight.data[5] += 1e-4
        save(self, path)
        self.model.lm_head.weight.data.copy_(before)

    monkeypatch.setattr(Policy, "save", spoil)
    assert export(full, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "what was exported is not what the run trained: log-probs differ by " in said
    assert list(tmp_path.iterdir()) == []


def test_merging_that_changes_the_model_is_refused(
    adapted: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def load(kind: Any, source: str, **more: Any) -> Any:
        return load_model(kind, str(base), **more)

    monkeypatch.setattr(module, "load_model", load)
    assert export(adapted, "--merge", "--out", tmp_path / "out") == 2
    assert "merging the adapters changes the model: log-probs differ by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class Touches:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_a_pickle_is_refused_and_not_run(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(full / "last.ckpt", weights_only=True)
    torch.save(content | {"more": Touches(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    assert is_whole(tmp_path / "evil.ckpt")
    assert export(full, "--ckpt", tmp_path / "evil.ckpt", "--out", tmp_path / "out") == 2
    assert "evil.ckpt holds Python objects" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.ckpt"]


def test_pickled_weights_are_refused(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    copytree(full, run)
    (run / "model" / "model.safetensors").unlink()
    (run / "model" / "sealed.json").unlink()
    (run / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    assert export(run) == 2
    assert not (tmp_path / "ran").exists()
    assert "has no weights in safetensors" in capsys.readouterr().err


def test_code_that_comes_with_a_model_is_not_run(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    copytree(full, run)
    (run / "model" / "sealed.json").unlink()
    config = json.loads((run / "model" / "config.json").read_text())
    theirs = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    config |= {"model_type": "mine", "auto_map": theirs}
    (run / "model" / "config.json").write_text(json.dumps(config))
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\nC = M = object\n"
    (run / "model" / "code.py").write_text(text)
    assert export(run) == 2
    assert not (tmp_path / "ran").exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_cannot_be_exported_is_said(
    full: Path, adapted: Path, scorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text((full / "config.yaml").read_text())
    (tmp_path / "cut.ckpt").write_bytes((full / "last.ckpt").read_bytes()[:-100])
    out = ("--out", tmp_path / "out")
    for words, said in (
        ((tmp_path,), "no training run there"),
        ((tmp_path / "missing",), "no training run there"),
        ((tmp_path / "half", *out), "has no finished model"),
        ((full, "--out", tmp_path / "other"), "other is not empty"),
        ((full, "--merge", *out), "has whole weights and no adapters"),
        ((full, "--ckpt", tmp_path / "none.ckpt", *out), "no checkpoint there"),
        (
            (full, "--ckpt", tmp_path / "half", *out),
            "is a folder of shards, and checkpoints are one",
        ),
        ((full, "--ckpt", tmp_path / "cut.ckpt", *out), "or a damaged one"),
        ((full, "--ckpt", adapted / "last.ckpt", *out), "is of another config: "),
        ((full, "--ckpt", scorer / "last.ckpt", *out), "is of another config: "),
    ):
        assert export(*words) == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep"


def test_weights_of_another_model_are_refused(
    full: Path, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the run's own folder, a checkpoint is taken by its weights."""
    copy(adapted / "last.ckpt", full / "steps" / "foreign.ckpt")
    assert export(full, "--ckpt", full / "steps" / "foreign.ckpt", "--out", tmp_path / "out") == 2
    assert "holds weights of another model" in capsys.readouterr().err


def test_a_changed_file_is_refused(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(full, tmp_path / "run")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert export(tmp_path / "run") == 2
    assert "model.safetensors is not what was written" in capsys.readouterr().err


def test_large_models_are_compared_in_their_own_precision(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Check(Policy.load(base, dropout=None), "float32")
    assert check.wanted.dtype == torch.float64
    assert check.gap(check.wanted + TOLERANCE / 2, "") <= TOLERANCE
    monkeypatch.setattr(module, "EXACT", 10)
    check = Check(Policy.load(base, dropout=None), "float32")
    assert check.wanted.dtype == torch.float32
    assert check.gap(check.wanted + 1e-4, "") == pytest.approx(1e-4, rel=1e-2)
    with pytest.raises(ConfigError, match=r"differ by 2\.0e-03"):
        check.gap(check.wanted + 2e-3, "")
