"""The command line as a user meets it: exit statuses and one readable message."""

import csv
import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger
from safetensors import SafetensorError

from alignlab import cli
from alignlab.doctor import examine
from alignlab.errors import DataError
from alignlab.objectives.sft import SFT
from alignlab.results.commits import present_commit


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(scope="module")
def stage(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage that trains a tiny model for three steps."""
    folder = tmp_path_factory.mktemp("stage")
    rows = "".join(f'{{"prompt": " w{i}", "completion": " w{i + 1} w5"}}\n' for i in range(3, 11))
    (folder / "rows.jsonl").write_text(rows)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config: dict[str, Any] = {
        "model": {
            "class_path": "alignlab.objectives.sft.SFT",
            "init_args": {
                "policy": {
                    "class_path": "alignlab.models.Policy",
                    "init_args": {
                        "config": {"model_type": "llama", "num_attention_heads": 2, **sizes},
                        "tokenizer": str(words),
                    },
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {
            "class_path": "alignlab.data.modules.DemonstrationData",
            "init_args": {
                "source": str(folder / "rows.jsonl"),
                "batch_size": 4,
                "validation_share": 0.25,
            },
        },
        "trainer": {"max_steps": 3, "logger": False, "accelerator": "cpu"},
    }
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_fit_leaves_a_hugging_face_folder(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignlab.models.policy import Policy

    assert call("fit", "--config", str(stage), "--trainer.default_root_dir=run") == 0
    said = capsys.readouterr().out.splitlines()
    found = re.fullmatch(
        r"Loss: (\S+) in the last step, (\S+) in the last validation \(perplexity (\S+)\)", said[1]
    )
    assert found is not None
    # 32 words; an untrained model takes each of them for as likely as any other
    assert [float(number) for number in found.groups()] == pytest.approx(
        [math.log(32), math.log(32), 32], rel=0.1
    )
    assert [said[0], *said[2:]] == [
        "Trained 3 steps. Model: run/model",
        "Files: run",
        "With a model card: alignlab export run",
    ]
    trained = Policy.load(here / "run" / "model")
    left = {path.name for path in (here / "run").iterdir()}
    assert left == {"config.yaml", "last.ckpt", "model", "rows.csv", "run.json"}
    record = json.loads((here / "run" / "run.json").read_text())
    assert record["commands"] == [f"alignlab fit --config {stage} --trainer.default_root_dir=run"]
    assert record["git_sha"] == present_commit()
    checkpoint = torch.load(here / "run" / "last.ckpt", weights_only=True)
    name, weight = next(iter(trained.model.state_dict().items()))
    assert torch.equal(checkpoint["state_dict"][f"policy.model.{name}"], weight)


def test_a_logger_may_be_a_word(stage: Path, here: Path) -> None:
    words = ["--trainer.logger=csv", "--trainer.log_every_n_steps=1"]
    assert call("fit", "--config", str(stage), *words) == 0
    folder = here / "lightning_logs" / "version_0"
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert sum(bool(row["speed/tokens_per_second"]) for row in rows) == 3
    settings = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert settings["trainer.max_steps"] == 3
    assert settings["model.optimizer.lr"] == 0.01
    assert call("fit", "--config", str(stage), "--trainer.logger=cvs") == 2


def test_overlays_and_flags_apply_in_order(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = here / "over.yaml"
    overlay.write_text("trainer: {max_steps: 2}\nseed_everything: 4\n")
    words = ["--config", str(stage), "--config", str(overlay), "--seed_everything", "5"]
    assert call("fit", *words) == 0
    assert "Trained 2 steps" in capsys.readouterr().out
    assert yaml.safe_load((here / "config.yaml").read_text())["seed_everything"] == 5


def test_callbacks_of_the_config_are_kept_and_one_of_them_may_set_the_checkpoints(
    stage: Path, here: Path
) -> None:
    from alignlab.callbacks.resume import Resume
    from alignlab.training import fit

    (here / "more.yaml").write_text(
        "trainer:\n  callbacks:\n"
        "  - class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler\n"
        "    init_args: {scheduling: {0: 1}}\n"
        "  - class_path: alignlab.callbacks.resume.Resume\n"
        "    init_args: {every_steps: 7}\n"
    )
    command = fit.build(["--config", str(stage), "--config", str(here / "more.yaml")])
    kinds = [type(callback).__name__ for callback in command.trainer.callbacks]  # type: ignore[attr-defined]
    assert kinds.count("GradientAccumulationScheduler") == 1
    assert kinds.count("Resume") == 1
    assert command.resume.every_steps == 7
    assert isinstance(fit.build(["--config", str(stage)]).resume, Resume)


def test_the_probe_has_a_key_of_its_own_and_goes_first(stage: Path, here: Path) -> None:
    from alignlab.training import fit

    (here / "prompts.jsonl").write_text('{"prompt": " w3"}\n')
    (here / "probe.yaml").write_text(
        "probe: {prompts: prompts.jsonl, samples: 2, max_new_tokens: 2, every_n_steps: 2,\n"
        "        reward: {class_path: alignlab.rewards.rule.ToySentiment}}\n"
        "trainer:\n  callbacks:\n"
        "  - class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler\n"
        "    init_args: {scheduling: {0: 1}}\n"
        "  - {class_path: alignlab.callbacks.kl_bound.KLBound, init_args: {limit: 3.0}}\n"
    )
    words = ["--config", str(stage), "--config", str(here / "probe.yaml"), "--probe.samples=3"]
    command = fit.build(words)
    callbacks = command.trainer.callbacks  # type: ignore[attr-defined]
    kinds = [type(callback).__name__ for callback in callbacks]
    assert kinds[:3] == ["FrontierProbe", "GradientAccumulationScheduler", "KLBound"]
    assert callbacks[0].samples == 3
    assert call("fit", *words, "--trainer.default_root_dir=run") == 0
    assert sorted(path.stem for path in (here / "run" / "points").glob("*.parquet")) == [
        "step-000002", "step-000003",
    ]  # fmt: skip


def test_a_stage_is_trained_and_validated_by_its_address(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the folder of a lone run: what the pipeline made and will make is left alone."""
    (here / "demo").mkdir()
    (here / "demo" / "sft.yaml").write_text(stage.read_text())
    (here / "demo" / "pipeline.yaml").write_text(
        "stages: {sft: {fit: sft.yaml, set: {trainer.logger: true}}}"
    )
    before = {path.name for path in here.iterdir()}
    assert call("fit", "demo:sft", "--trainer.max_steps", "2") == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"Trained 2 steps. Model: {here}/lightning_logs/version_0/model\n")
    assert "demo:sft: sft, with inputs from results/demo\n" in said.err
    assert {path.name for path in here.iterdir()} - before == {"lightning_logs"}
    assert call("validate", "demo:sft", "--ckpt_path=lightning_logs/version_0/last.ckpt") == 0
    assert "val/loss" in capsys.readouterr().out
    other = ["--model.class_path=tests.test_cli.Other", "--ckpt_path"]
    assert call("validate", "demo:sft", *other, "lightning_logs/version_0/last.ckpt") == 2
    assert "was trained with alignlab.objectives.sft.SFT, and" in capsys.readouterr().err
    (here / "demo" / "sft.yaml").write_text("model: {class_path: alignlab.objectives.sft.SFT}\n")
    assert call("fit", "--config", "demo/sft.yaml") == 2
    assert "Train the stage by its address, demo:STAGE." in capsys.readouterr().err


@pytest.mark.slow
def test_an_address_trains_the_weights_of_the_pipelines_run(stage: Path, here: Path) -> None:
    """The same seed and point of the grid, bit for bit; another one has other weights."""
    (here / "demo").mkdir()
    (here / "demo" / "sft.yaml").write_text(stage.read_text())
    (here / "demo" / "pipeline.yaml").write_text(
        "seeds: [0, 1]\nstages:\n  sft:\n    fit: sft.yaml\n    per_seed: true\n"
        "    set: {trainer.logger: true, data.init_args.seed: '{seed}'}\n"
        "    grid: {model.init_args.optimizer.init_args.lr: [0.01, 0.02]}\n"
    )
    assert call("run", "demo", "--workers", "1") == 0
    assert call("fit", "demo:sft", "--seed", "1", "--point", "1") == 0
    own = (here / "lightning_logs" / "version_0" / "model" / "model.safetensors").read_bytes()
    runs = here / "results" / "demo" / "stages" / "sft"
    equal = [path.parent.name for path in runs.glob("*/model.safetensors")
             if path.read_bytes() == own]  # fmt: skip
    assert equal == ["lr0.02-s1"]
    assert len([*runs.iterdir()]) == 4


def test_progress_is_lines_where_there_is_no_terminal(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignlab.callbacks.journal import ProgressLines
    from alignlab.training import fit

    command = fit.build(["--config", str(stage), "--trainer.max_steps=4"])
    lines = next(c for c in command.trainer.callbacks if isinstance(c, ProgressLines))  # type: ignore[attr-defined]
    lines.every_seconds = 0.0
    fit.run_fit(command)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in said] == [f"step {n} of 4" for n in (1, 2, 3, 4)]
    assert said[-1].endswith("about 0 s left")
    assert " loss " in said[0]


def test_a_finished_fit_continues_from_its_checkpoint(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(stage), "--trainer.max_steps"]
    assert call(*words, "2", "--trainer.default_root_dir=cut") == 0
    more = ["--ckpt_path", "cut/last.ckpt", "--trainer.default_root_dir=cut"]
    assert call(*words, "3", *more) == 0
    assert call(*words, "3", "--trainer.default_root_dir=whole") == 0
    # Once more from its last step: there is nothing to train, and the same model is written.
    last = ["--ckpt_path", "whole/last.ckpt", "--trainer.default_root_dir=again"]
    assert call(*words, "3", *last) == 0
    files = [here / run / "model" / "model.safetensors" for run in ("cut", "whole", "again")]
    assert len({path.read_bytes() for path in files}) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if "rain" in line] == [
        *("Trained 2 steps. Model: cut/model", "Trained 3 steps. Model: cut/model"),
        "Trained 3 steps. Model: whole/model",
        "Nothing was left to train: whole/last.ckpt is of step 3, and trainer.max_steps is 3. To "
        "train further, set a larger trainer.max_steps. Model: again/model",
    ]


def test_validate_reports_and_trains_nothing(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", "--config", str(stage)) == 0
    assert "val/loss" in capsys.readouterr().out
    assert not (here / "model").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--model.init_args.policyy", "x"],
            "unknown key model.init_args.policyy, did you mean policy? SFT accepts:",
        ),
        (
            ["--model.init_args.policyx.seed", "1"],
            "unknown key model.init_args.policyx, did you mean",
        ),
        (["--model.init_args.optimizer", "null"], "model.init_args.optimizer must be given"),
        (["--model.init_args.optimizer.init_args.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["--model.init_args.policy.dtype", "null"], "dtype must be one of ["),
        (["--data.init_args.seed", "null"], "data.init_args.seed must be a whole number, got null"),
        (["--data.init_args.length_window", "0"], "length_window must be at least 1, got 0"),
        (["--trainer.max_step", "5"], "did you mean trainer.max_steps?"),
        (["--trainer.max_steps", "0"], "trainer.max_steps must be -1 for no bound, or above 0"),
        (["--trainer.max_steps", "-5"], "trainer: `max_steps` must be a non-negative integer or"),
        (["--trainer.limit_train_batches", "0"], "trainer.limit_train_batches must be above 0"),
        (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val must be 0 or above"),
        (["--trainer.overfit_batches", "1"], "trainer.overfit_batches has no effect"),
        (["--trainer.strategy", "ddp_spawn"], "keep the trained weights to themselves"),
        (["--trainer.strategy", "warp"], "trainer: You selected an invalid strategy name"),
        (["--trainer.accelerator", "warp"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.devices", "99"], "trainer.devices 99: too many processes for the"),
        (["--trainer.val_check_interval", "9"], "val_check_interval 9: an epoch has 2 batches"),
        (
            ["--trainer.default_root_dir", "/proc/x"],
            "/proc/x: No such file or directory. Name a folder that",
        ),
        (
            ["--trainer.max_steps=1", "--trainer.min_steps=2"],
            "trainer.min_steps must be at most trainer.max_steps, 1, got 2",
        ),
        (["--trainer.min_steps", "9"], "trainer.min_steps must be at most trainer.max_steps, 3"),
        (
            ["--trainer.max_epochs", "2", "--trainer.min_epochs", "3"],
            "trainer.min_epochs must be at most trainer.max_epochs, 2, got 3",
        ),
        (["--trainer.val_check_interval", "0"], "trainer.val_check_interval must be above 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "check_val_every_n_epoch must be at least 1"),
        (["--trainer.precision", "64"], "trainer.precision 64 converts batches"),
        (["--model.init_args.policy.dropout", "3"], "dropout must lie in [0, 1), got 3.0"),
        (["--config"], "--config needs a file"),
        (["stage.yaml"], "unrecognized arguments: stage.yaml"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (["--seed_everything", "-1"], "seed_everything must be 0 to 4294967295, got -1"),
        (["--trainer.callbacks", "tests.test_cli.Broken"], "Broken cannot be made: KeyError: 'x'"),
        (
            ["--model.init_args.policy.init_args.tokenizer", "my/model"],
            "no such folder for",
        ),
        (["--data.init_args.batch_size", "many"], "batch_size must be a whole number, got many"),
        (["--data.init_args.batch_size", "0"], "batch_size 0 is not a multiple"),
        (["--data.init_args.source", "gone.jsonl"], "gone.jsonl: no such file"),
        (["--config", "gone.yaml"], "gone.yaml: no such file"),
        (["--config", "binary.yaml"], "binary.yaml: not a text file"),
        (["--config=binary.yaml"], "binary.yaml: not a text file"),
        (["--ckpt_path", "gone.ckpt"], "gone.ckpt: no such file"),
        (["--ckpt_path", "binary.yaml"], "binary.yaml: not a checkpoint"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--model.class_path", "alignlab.objectives.gone.X"], "has no attribute 'gone'"),
        (
            ["--model.class_path", "alignlab.objectives.dpo.DPO", "--model.init_args.beta=-1"],
            "error: DPO needs beta > 0, got -1.0. Set model.init_args.beta.",
        ),
    ],
)
def test_bad_input_is_one_line_status_2_and_nothing_written(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    (here / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    logged = ["--trainer.default_root_dir=run", "--trainer.logger=true"]
    assert call("fit", "--config", str(stage), *logged, *args) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [path.name for path in here.rglob("*")] == ["binary.yaml"]


def test_what_the_probe_or_the_doctor_refuses_leaves_nothing_either(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask when Lightning has opened the logs and saved the config."""
    (here / "prompts.jsonl").write_text('{"prompt": " w3"}\n')
    words = ["fit", "--config", str(stage), "--trainer.default_root_dir=run"]
    words.append("--trainer.logger=true")
    probe = "{prompts: prompts.jsonl, samples: 1, max_new_tokens: 9999, every_n_steps: 2, "
    probe += "reward: {class_path: alignlab.rewards.rule.ToySentiment}}"
    assert call(*words, f"--probe={probe}") == 2
    assert "with max_new_tokens=9999 it exceeds" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["prompts.jsonl"]
    monkeypatch.setattr(examine, "FAST", {"sick": lambda patient: ("stop", "Stay in bed.")})
    assert call(*words) == 2
    assert capsys.readouterr().err.endswith("error: sick: Stay in bed.\n")
    assert [path.name for path in here.iterdir()] == ["prompts.jsonl"]


class Other(SFT):
    """An objective with the weights of another one."""


class Broken(Callback):
    """A class whose constructor fails over something of its own."""

    def __init__(self) -> None:
        self.x = dict[str, int]()["x"]


def test_debug_shows_the_traceback(stage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--debug", "--config", str(stage), "--data.init_args.batch_size", "0"]
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: batch_size 0")


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (DataError("rows.csv: empty"), 2, "error: rows.csv: empty\n"),
        (RuntimeError("broken"), 1, "error: RuntimeError: broken (--debug shows where)\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; continue with: alignlab run 'my folder'\n"),
        (KeyboardInterrupt("after step 3"), 130, "error: after step 3\n"),
        # of another pipe than the output, such as one to a worker that has died
        (BrokenPipeError("gone"), 1, "error: BrokenPipeError: gone (--debug shows where)\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "points.csv"),
            1,
            "error: [Errno 28] No space left on device: 'points.csv'. What is finished is kept: "
            "make room and call again.\n",
        ),
        (
            SafetensorError("I/O error: No space left on device (os error 28)"),
            1,
            "error: I/O error: No space left on device (os error 28). What is finished is kept: "
            "make room and call again.\n",
        ),
    ],
)
def test_status_follows_from_the_kind_of_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    status: int,
    said: str,
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(cli, "_parser", fail)
    assert call("run", "my folder") == status
    assert capsys.readouterr().err == said


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("words", "together"),
    [(["stages"], False), (["frontier", "x"], False), (["run", "nowhere"], True)],
)
def test_a_reader_that_ends_first_ends_the_command_quietly(
    words: list[str], together: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``| head``, and with ``2>&1 | head`` where errors go the same way.

    The short list of stages fails when it is flushed, a long table already when it is printed.
    """
    monkeypatch.setattr(cli, "_frontier", lambda args: print("0.25 " * 9999))
    reader, writer = os.pipe()
    os.close(reader)
    child = os.fork()
    if child == 0:
        os.dup2(writer, 1)
        os.dup2(writer if together else os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
        status = 70
        try:
            status = call(*words)
            sys.stdout.flush()  # as Python does at its end
        finally:
            os._exit(status)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 141
    assert together or not (here / "errors").read_text()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["run"],
        ["run", ""],
        ["fit", "null"],
        ["run", "x", "--workers", "0"],
        ["run", "x", "--workers", "10000"],
        ["run", "x", "--seeds", "a"],
        ["run", "x", "--seeds", "1_0"],
        ["run", "x", "--results", ""],
        ["sweep", "x.yaml", "--results", " "],
    ],
)
def test_a_bad_call_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run", ""], ["run", ".", "--results", ""], ["sweep", " "]])
def test_an_empty_path_is_not_the_working_directory(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pipeline.yaml").write_text("stages: {}\n")
    assert call(*words) == 2
    assert "expected a path" in capsys.readouterr().err


def test_run_in_a_folder_without_a_pipeline(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", ".") == 2
    assert "no pipeline.yaml there" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_an_option_that_no_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("stages", "--bogus", "1") == 2
    assert "unrecognized arguments: --bogus 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "frontier", "sample", "export", "plan"])
def test_help_has_an_example_and_loads_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from alignlab.cli import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "finally: assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"Example: alignlab {command}" in " ".join(done.stdout.split())
    assert time.monotonic() - began < 2


@pytest.mark.slow
def test_sigterm_ends_a_fit_with_143_and_a_checkpoint(stage: Path, here: Path) -> None:
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    process = subprocess.Popen([*words, "--trainer.max_steps", "1000000"], cwd=here)
    wait_for(lambda: (here / "last.ckpt").exists())
    process.terminate()
    assert process.wait(30) == 143
    assert torch.load(here / "last.ckpt", weights_only=True)["global_step"] > 3


def wait_for(condition: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_processes_train_evaluate_and_end_together(stage: Path, here: Path) -> None:
    """What only one of them does must not wait for the other: files, evaluation, the last word."""
    (here / "prompts.jsonl").write_text('{"prompt": " w3"}\n{"prompt": " w4"}\n')
    policy = yaml.safe_load(stage.read_text())["model"]["init_args"]["policy"]["init_args"]
    build_policy(policy).save(here / "reference")
    (here / "both.yaml").write_text(
        "trainer:\n  devices: 2\n  strategy: ddp\n  max_steps: 4\n  default_root_dir: run\n"
        "  callbacks:\n  - class_path: alignlab.callbacks.probe.FrontierProbe\n    init_args:\n"
        "      {prompts: prompts.jsonl, reference: reference, samples: 2, max_new_tokens: 2,\n"
        "       every_n_steps: 2, reward: alignlab.rewards.rule.ToySentiment}\n"
        "data: {init_args: {batch_size: 4, validation_share: 0.0}}\n"
    )
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    done = subprocess.run(
        [*words, "--config", "both.yaml"], cwd=here, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "Trained 4 steps. Model: run/model" in done.stdout.splitlines()
    found = sorted(path.name for path in (here / "run" / "points").glob("*.parquet"))
    assert found == ["step-000002.parquet", "step-000004.parquet"]


DIES = """
import os, signal
import lightning as L

class Dies(L.Callback):
    def __init__(self, rank: int, killed: bool = False):
        self.rank, self.killed = rank, killed

    def on_train_batch_start(self, trainer, *_):
        if (trainer.global_rank, trainer.global_step) == (self.rank, 1):
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise FloatingPointError("a number was lost")
"""


@pytest.mark.slow  # each is two processes that import everything
@pytest.mark.parametrize(
    ("dies", "last"),
    [
        ({"rank": 1}, "error: PeerFailed: process 1 failed: FloatingPointError: a number was lost"),
        ({"rank": 0}, "error: PeerFailed: process 0 failed: FloatingPointError: a number was lost"),
        ({"rank": 1, "killed": True}, "process 0 lost its connection to another one"),
    ],
)
def test_the_last_line_names_what_ended_the_first_process(
    stage: Path, here: Path, dies: dict[str, Any], last: str
) -> None:
    (here / "dies.py").write_text(DIES)
    trainer: dict[str, Any] = {"devices": 2, "strategy": "ddp", "default_root_dir": "run"}
    trainer["callbacks"] = [{"class_path": "dies.Dies", "init_args": dies}]
    data = {"init_args": {"validation_share": 0.0}}
    (here / "both.yaml").write_text(yaml.safe_dump({"trainer": trainer, "data": data}))
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    done = subprocess.run(
        [*words, "--config", "both.yaml"], cwd=here, capture_output=True, text=True, timeout=240
    )
    assert done.returncode not in (0, 2)
    assert last in done.stderr.splitlines()[-1]


def build_policy(arguments: dict[str, Any]) -> Any:
    from alignlab.models.policy import Policy

    return Policy(**arguments)


def test_a_precision_that_rounds_batches_is_refused(
    stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning would convert log-probs and rewards with the rest, and fails on what cannot."""
    monkeypatch.chdir(tmp_path)
    assert call("fit", "--config", str(stage), "--trainer.precision", "bf16-true") == 2
    said = capsys.readouterr().err
    assert "trainer.precision bf16-true converts batches" in said
    assert "bf16-mixed" in said


def test_settings_of_jobs_without_jobs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sweep", "sweeps/quickstart.yaml", "--jobs", "3", "--dry-run") == 2
    assert "--jobs and --job need --submit" in capsys.readouterr().err


def test_a_file_in_the_frontiers_place_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").touch()
    assert call("frontier", str(tmp_path), "--out", str(tmp_path / "out")) == 2
    assert "it is a file. Name another folder with --out" in capsys.readouterr().err


def test_fit_says_what_became_of_the_rows_and_keeps_the_table(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (stage.parent / "rows.jsonl").read_text().splitlines()]
    rows[0]["completion"] = None
    rows[1]["prompt"] = " w3" * 600
    (here / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["--data.init_args.source=rows.jsonl", "--data.init_args.validation_share=0"]
    assert call("fit", "--config", str(stage), "--trainer.default_root_dir=run", *words) == 0
    said = capsys.readouterr().err
    assert "SFT: LlamaForCausalLM (made from its config), " in said
    assert "train: rows.jsonl: 6 of 8 rows kept" in said
    assert "refused 1 x" in said
    assert "files: run\n" in said
    with (here / "run" / "rows.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    refused = [row for row in table if row["what"] == "refused"]
    assert [row["rows"] for row in table if row["what"] == "kept"] == ["6"]
    assert sum(int(row["rows"]) for row in refused) == 2
    assert {row["examples"] for row in refused} == {
        "rows.jsonl:1",
        "rows.jsonl:2 (604 > 512 tokens)",
    }


def test_micro_batches_are_set_in_one_place(stage: Path, here: Path) -> None:
    """The data say into how many a step is cut; the saved config says what the trainer did."""
    words = ["--config", str(stage), "--data.init_args.micro_batch_size=2"]
    assert call("fit", *words, "--trainer.default_root_dir=derived") == 0
    set_by_hand = ["--trainer.accumulate_grad_batches=2", "--trainer.default_root_dir=by_hand"]
    assert call("fit", *words, *set_by_hand) == 0
    weights = [here / run / "model" / "model.safetensors" for run in ("derived", "by_hand")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    saved = yaml.safe_load((here / "derived" / "config.yaml").read_text())
    assert saved["trainer"]["accumulate_grad_batches"] == 2
    assert call("fit", *words, "--trainer.accumulate_grad_batches=1") == 2


class Service(MLFlowLogger):
    """MLflow without its package: the first run has the id m1, the next one m2."""

    used: ClassVar[list[str]] = []
    sent: ClassVar[list[dict[str, Any]]] = []  # the settings

    def __init__(self) -> None:
        Logger.__init__(self)
        self._run_id: str | None = None
        self._checkpoint_callback = None

    @property
    def experiment(self) -> Any:
        if self._run_id is None:
            self._run_id = f"m{len(set(self.used)) + 1}"
            self.used.append(self._run_id)
        data = SimpleNamespace(params={})
        return SimpleNamespace(get_run=lambda run: SimpleNamespace(data=data))

    @property
    def save_dir(self) -> str:
        return "service"

    def log_hyperparams(self, params: Any) -> None:
        self.sent.append(params)
        self.used.append(str(self.run_id))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.used.append(str(self.run_id))

    def finalize(self, status: str = "success") -> None:
        pass


def test_a_continued_run_goes_on_in_services(stage: Path, here: Path) -> None:
    (here / "both.yaml").write_text(
        "trainer:\n  logger:\n  - class_path: lightning.pytorch.loggers.CSVLogger\n"
        "    init_args: {save_dir: .}\n  - {class_path: tests.test_cli.Service}\n"
    )
    words = ["fit", "--config", str(stage), "--config", "both.yaml"]
    Service.used.clear()
    assert call(*words, "--trainer.max_steps=2") == 0
    assert call("fit", "--resume", "lightning_logs/version_0", "--trainer.max_steps=3") == 0
    assert set(Service.used) == {"m1"}
    assert call(*words, "--trainer.max_steps=1") == 0
    assert set(Service.used) == {"m1", "m2"}


def test_a_fit_that_is_refused_leaves_no_run_of_a_service(
    stage: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor looks at a model on its device, when Lightning has opened the logs."""
    (here / "both.yaml").write_text(
        "trainer:\n  logger:\n  - class_path: lightning.pytorch.loggers.CSVLogger\n"
        "    init_args: {save_dir: .}\n  - {class_path: tests.test_cli.Service}\n"
    )
    words = ["fit", "--config", str(stage), "--config", "both.yaml", "--trainer.max_steps=1"]
    Service.used.clear()
    Service.sent.clear()
    with monkeypatch.context() as sick:
        sick.setattr(examine, "FAST", {"sick": lambda patient: ("stop", "Stay in bed.")})
        assert call(*words) == 2
    assert Service.used == []
    assert call(*words) == 0
    assert set(Service.used) == {"m1"}
    assert [settings["trainer.max_steps"] for settings in Service.sent] == [1]


def test_resume_goes_on_in_the_same_folder(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the run's folder, or as the newest run of a config; with a logger's numbered folders."""
    words = ["fit", "--config", str(stage), "--trainer.logger=true", "--trainer.max_steps"]
    assert call(*words, "2") == 0
    assert call(*words, "2") == 0
    runs = here / "lightning_logs"
    assert call("fit", "--resume", "lightning_logs/version_0", "--trainer.max_steps=3") == 0
    assert "Trained 3 steps. Model: " in capsys.readouterr().out
    assert call(*words, "4", "--resume=lightning_logs/version_0") == 0
    assert call(*words, "5", "--resume") == 0  # the newest: version_0 was saved last
    assert "Trained 5 steps. Model: " in capsys.readouterr().out
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
    step = [torch.load(runs / f"version_{n}" / "last.ckpt", weights_only=True)["global_step"]
            for n in (0, 1)]  # fmt: skip
    assert step == [5, 2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--resume", "gone"], "--resume gone: no run there (no config.yaml)"),
        (["--resume", "empty"], "--resume empty: no last.ckpt there. Start again without --resume"),
        (["--resume"], "--resume: no run with a last.ckpt in "),
        (["--resume", "elsewhere/run"], "--resume elsewhere/run: these settings write to"),
    ],
)
def test_what_cannot_be_resumed_is_said(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str], asked: list[str], said: str
) -> None:
    for folder in ("empty", "elsewhere/run"):
        (here / folder).mkdir(parents=True)
        (here / folder / "config.yaml").write_text("")
    root = ["--trainer.default_root_dir=empty"]
    assert call("fit", "--config", str(stage), *root, *asked) == 2
    assert said in capsys.readouterr().err


def test_validate_without_rows_is_said(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("validate", "--config", str(stage), "--data.init_args.validation_share=0") == 2
    assert "there are no rows to validate on" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["fit", "--help"], ["fit"], ["--version"]])
def test_the_first_words_of_a_newcomer_are_answered_at_once(words: list[str]) -> None:
    code = (
        "import sys; from alignlab.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert time.monotonic() - began < 2
    assert done.returncode == (2 if words == ["fit"] else 0)
    said = done.stdout + done.stderr
    assert ("alignlab.objectives.dpo.DPO" in said) == ("fit" in words)
    assert ("error: fit needs an address, DIR:STAGE, or --config" in said) == (words == ["fit"])


def test_help_of_one_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "alignlab.objectives.dpo.DPO", "--data=PreferenceData", "--help"]
    assert call("fit", *words) == 0
    said = capsys.readouterr().out
    assert "--model.beta BETA" in said
    assert "--data.batch_size BATCH_SIZE" in said


def test_classes_in_the_working_directory_are_found(
    stage: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Python was not started to look there, as from an installed command."""
    (here / "only_here.py").write_text(
        "from lightning.pytorch import Callback\n\n\nclass Quiet(Callback):\n    pass\n"
    )
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(here))])
    words = ["--trainer.default_root_dir=run", "--trainer.callbacks=only_here.Quiet"]
    assert call("fit", "--config", str(stage), *words) == 0
    assert sys.path[-1] == str(here)  # last: a file here hides no library


@pytest.mark.parametrize("apart", [True, False])
def test_a_null_for_an_argument_of_an_argument_is_none(stage: Path, apart: bool) -> None:
    """The parser alone reads it as a text there: a tokenizer, or a class, of the name None."""
    from alignlab.training import fit

    given: list[str] = []
    for word in ("policy.init_args.dropout", "optimizer.init_args.fused", "policy.lora"):
        option = f"--model.init_args.{word}"
        given += [option, "null"] if apart else [f"{option}=null"]
    model = fit.build(["--config", str(stage), *given]).config.model.init_args
    policy = model.policy.init_args
    assert (policy.dropout, policy.lora, model.optimizer.init_args.fused) == (None, None, None)
    assert policy.config["num_attention_heads"] == 2  # what else was given stays


@pytest.mark.slow
def test_ctrl_c_saves_the_step_and_says_how_to_go_on(stage: Path, here: Path) -> None:
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    more = ["--trainer.max_steps", "1000000", "--trainer.logger", "true"]
    # A shell that ignores SIGINT, as one in the background does, would hand that on.
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*words, *more], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, own)
    run = here / "lightning_logs" / "version_0"
    wait_for((run / "last.ckpt").exists)  # steps are being made
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130
    step = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert said[-2] == "stopping after this step; Ctrl-C again stops at once"
    go_on = f"alignlab fit --resume {run}"
    assert said[-1] == f"error: interrupted after step {step}; continue with: {go_on}"
    again = [*words[:3], *go_on.split()[1:], "--trainer.max_steps", str(step + 3)]
    done = subprocess.run(again, cwd=here, capture_output=True, text=True)
    assert f"Trained {step + 3} steps" in done.stdout


@pytest.mark.slow
def test_what_libraries_tell_each_other_is_not_shown(
    stage: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapters make peft and transformers warn; Lightning counts modules that do not train."""
    lora = "--model.init_args.policy.init_args.lora={class_path: alignlab.models.adapters.Lora}"
    words = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage), lora]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    starts = ("SFT: ", "train: ", "validation: ", "  ", "files: ", "doctor: ", "step ")
    assert [line for line in done.stderr.split("\n")[:-1] if not line.startswith(starts)] == []
    ends = ["Trained 3 steps", "Loss", "Files", "With a model card"]
    assert [re.split("[.:]", line)[0] for line in done.stdout.split("\n")[:-1]] == ends
