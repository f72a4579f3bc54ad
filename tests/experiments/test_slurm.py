"""Several nodes: the SLURM script and torchrun's line, on two nodes that this machine makes up.

The nodes are two network namespaces with a cable between them, so each has an address of its own.
Where a process may not make those, they are two loopback addresses.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "experiments" / "_shared" / "slurm.sh"
# Starts a task on each node, and passes SIGTERM on to all of them, as SLURM sends it.
SRUN = """#!{python}
import os, signal, subprocess, sys
first = next(i for i, word in enumerate(sys.argv) if i and not word.startswith("--"))
tasks = []
for rank, (enter, env) in enumerate({nodes!r}):
    own = {{"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0"}}
    words = [*enter, *sys.argv[first:]]
    tasks.append(subprocess.Popen(words, env=os.environ | env | own))
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""


@dataclass(frozen=True)
class Node:
    """One of two machines.

    Args:
        address: In the network that joins them.
        enter: Words before a command that runs there.
        env: Environment of such a command.
    """

    address: str
    enter: tuple[str, ...]
    env: dict[str, str]


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Two nodes."""
    names = [f"alignlab-{os.getpid()}-{k}" for k in range(2)]
    ends = [f"al{os.getpid() % 10**7}-{k}" for k in range(2)]
    try:
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for k, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("netns", "add", name)
            ip("link", "set", end, "netns", name)
            for words in (
                ("addr", "add", f"10.77.0.{k + 1}/24", "dev", end),
                ("link", "set", end, "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", name, *words)
        yield [
            Node(
                f"10.77.0.{k + 1}",
                ("ip", "netns", "exec", name),
                {"GLOO_SOCKET_IFNAME": end},  # this machine's name is 127.0.0.1 on both
            )
            for k, (name, end) in enumerate(zip(names, ends, strict=True))
        ]
    except (OSError, subprocess.CalledProcessError):
        yield [Node(f"127.0.0.{k + 1}", (), {"GLOO_SOCKET_IFNAME": "lo"}) for k in range(2)]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def stage(words: Path, tmp_path: Path) -> Path:
    """Four steps of a tiny model in float64 on eight rows of unequal length, six a step."""
    rows = [f'{{"prompt": " w{i}", "completion": "{" w5" * (i % 4 + 1)}"}}\n' for i in range(8, 16)]
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    policy = {
        "config": {"model_type": "llama", "num_attention_heads": 2, **sizes},
        "tokenizer": str(words),
        "dtype": "float64",
    }
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}}
    config: dict[str, Any] = {
        "model": {
            "class_path": "alignlab.objectives.sft.SFT",
            "init_args": {"policy": policy, "optimizer": optimizer},
        },
        "data": {
            "class_path": "alignlab.data.modules.DemonstrationData",
            "init_args": {"source": str(tmp_path / "rows.jsonl"), "batch_size": 6},
        },
        "trainer": {"max_steps": 4, "logger": False, "accelerator": "cpu"},
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def train_alone(stage: Path) -> dict[str, torch.Tensor]:
    """The weights after training in one process."""
    fit = [sys.executable, "-m", "alignlab.cli", "fit", "--config", str(stage)]
    run = subprocess.run([*fit, "--trainer.default_root_dir", "one"], cwd=stage.parent, check=False)
    assert run.returncode == 0
    return weights(stage.parent / "one")


def check_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, weight in found.items():
        assert weight.dtype == torch.float64
        torch.testing.assert_close(weight, wanted[name], rtol=0, atol=1e-12)


def begin(words: Sequence[str], folder: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """A command in a process group of its own."""
    return subprocess.Popen(words, cwd=folder, env=env, start_new_session=True)


def all_end(started: Sequence["subprocess.Popen[bytes]"], patience: float = 300.0) -> list[int]:
    """Exit statuses; whatever has not ended by then is killed, each with all that it started."""
    try:
        deadline = time.monotonic() + patience
        return [process.wait(deadline - time.monotonic()) for process in started]
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_torchrun_on_two_nodes_trains_the_weights_of_one_process(
    stage: Path, nodes: list[Node]
) -> None:
    """The line of docs/nodes.md."""
    started, port = [], free_port()
    for rank, node in enumerate(nodes):
        line = [
            *node.enter, sys.executable, "-m", "torch.distributed.run",
            "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1",
            "--master-addr", nodes[0].address, "--master-port", str(port),
            "--local-addr", node.address,
            "-m", "alignlab.cli", "fit", "--config", str(stage),
            "--trainer.num_nodes", "2", "--trainer.devices", "1",
            "--trainer.default_root_dir", "two",
        ]  # fmt: skip
        started.append(begin(line, stage.parent, os.environ | node.env))
    assert all_end(started) == [0, 0]
    check_equal(weights(stage.parent / "two"), train_alone(stage))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def slurm(folder: Path, nodes: Sequence[Node], **more: str) -> dict[str, str]:
    """The environment of a job of two nodes; its srun is a stub."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (
        ("srun", SRUN.format(python=sys.executable, nodes=[(n.enter, n.env) for n in nodes])),
        ("alignlab", f'#!/bin/sh\nexec {sys.executable} -m alignlab.cli "$@"\n'),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "alignlab",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODELIST": ",".join(node.address for node in nodes),
        "MASTER_PORT": str(free_port()),  # the job's id would give it
        **more,
    }


@pytest.mark.slow
def test_the_slurm_script_trains_the_weights_of_one_process(
    stage: Path, nodes: list[Node], tmp_path: Path
) -> None:
    words = [str(SCRIPT), "--config", str(stage), "--trainer.default_root_dir", "two"]
    job = begin(words, tmp_path, slurm(tmp_path, nodes))
    assert all_end([job]) == [0]
    check_equal(weights(tmp_path / "two"), train_alone(stage))


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_continued(
    stage: Path, nodes: list[Node], tmp_path: Path
) -> None:
    saving = {"class_path": "alignlab.callbacks.resume.Resume", "init_args": {"every_steps": 1}}
    config = yaml.safe_load(stage.read_text())
    config["trainer"] |= {"max_steps": 60, "callbacks": [saving]}
    stage.write_text(yaml.safe_dump(config))
    env = slurm(tmp_path, nodes)
    words = [str(SCRIPT), "--config", str(stage), "--trainer.default_root_dir", "two"]
    job = begin(words, tmp_path, env)
    deadline = time.monotonic() + 120
    while not (tmp_path / "two" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert all_end([job]) == [143]
    step = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < step < 60
    job = begin([str(SCRIPT), "--resume", "two"], tmp_path, env)
    assert all_end([job]) == [0]
    job = begin([*words[:-1], "whole"], tmp_path, env)
    assert all_end([job]) == [0]
    whole = weights(tmp_path / "whole")
    assert all(
        torch.equal(weight, whole[name]) for name, weight in weights(tmp_path / "two").items()
    )


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("", ""),
        ("SLURM_JOB_NUM_NODES", "Submit this script with sbatch"),
        ("SLURM_NTASKS_PER_NODE", "Give sbatch --ntasks-per-node"),
    ],
)
def test_the_slurm_script_calls_fit_in_every_task(tmp_path: Path, missing: str, said: str) -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    env = slurm(tmp_path, [], SLURM_CPUS_PER_TASK="7")
    env.pop(missing, None)
    (tmp_path / "bin" / "srun").write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([*sys.argv[1:], os.environ['SRUN_CPUS_PER_TASK']]))\n"
    )
    words = ["experiments/tldr:sft", "--data.init_args.source", "my rows.jsonl"]
    done = subprocess.run(
        [str(SCRIPT), *words], env=env, capture_output=True, text=True, check=False
    )
    if missing:
        assert done.returncode == 1
        assert said in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "--kill-on-bad-exit=1", "alignlab", "fit", *words,
        "--trainer.num_nodes", "2", "--trainer.devices", "1", "7",
    ]  # fmt: skip
