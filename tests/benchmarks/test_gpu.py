"""The script for a GPU in its small form: every part of it on a CPU."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("gpu")
    for name in [name for name in sys.modules if name.split(".")[0] in ("gpu", "sides")]:
        sys.modules.pop(name)


def test_a_part_is_written_whatever_comes_of_it(gpu: Any, tmp_path: Path) -> None:
    """Found, failed with its reason, and not begun since the time is over."""
    bench = gpu.Bench(tmp_path, minutes=1, small=True)

    def fails() -> dict[str, Any]:
        raise ValueError("no such shape")

    bench.run("good", lambda: {"value": 1})
    bench.run("bad", fails)
    bench.ends = 0.0
    bench.run("late", fails)
    written = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert [part["state"] for part in written] == ["done", "failed", "no time left"]
    assert written[0]["value"] == 1
    assert "no such shape" in written[1]["why"]


def test_necessary_flops_of_a_step_by_hand(gpu: Any) -> None:
    """One layer of width 4 with 2 heads of 2, 1 for keys: 4 (4 + 4 + 2 + 2) + 3 * 4 * 5 weights.

    A prompt of 3 and two completions of 2: 7 tokens; 4.5 pairs of query and key in the prompt, and
    2 * 2 * (3 + 1) behind it. The head has 6 words, at 4 positions.
    """
    config = {
        "hidden_size": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2,
        "intermediate_size": 5, "num_hidden_layers": 1, "vocab_size": 6,
    }  # fmt: skip
    trunk = 2 * (4 * (4 + 4 + 2 + 2) + 3 * 4 * 5) * 7 + 4 * 4 * (4.5 + 16)
    head = 2 * 4 * 6 * 4
    case = gpu.Case("simpo", "simpo", 3, 1, 2, batch=1)
    flops = gpu.necessary_flops(case, config, adapters=False)
    assert flops == pytest.approx(3 * (trunk + head))
    case = gpu.Case("dpo", "dpo", 3, 1, 2, batch=5)
    flops = gpu.necessary_flops(case, config, adapters=True)
    assert flops == pytest.approx(5 * 3 * (trunk + head))


def test_log_probs_on_the_device_are_those_of_the_cpu(gpu: Any, tmp_path: Path) -> None:
    (part,) = gpu.main(["--small", "--out", str(tmp_path / "out"), "--only", "check-devices"])
    assert part["state"] == "done"
    assert part["ok"]


@pytest.mark.slow  # eight objectives on two models, and four checks
def test_all_parts_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--small", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    parts = [json.loads(line) for line in (tmp_path / "parts.jsonl").read_text().splitlines()]
    assert len(parts) == 21
    states = {part["part"]: part["state"] for part in parts}
    assert states.pop("check-fsdp") == "needs a GPU"
    assert set(states.values()) == {"done"}
    assert all(part["ok"] for part in parts if "ok" in part)
    assert all(part["tokens_per_second"] > 0 for part in parts if "tokens_per_second" in part)
