"""An evaluation is one file: a function that a stage calls, and whose table the results show."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alignlab.models.policy import Policy
from alignlab.pipeline import run_experiment
from alignlab.results.csv_tables import read_table

EVALUATION = '''
from pathlib import Path

from alignlab.bounds import Count
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table


def write_sizes(*, out: str, policies: dict[str, str], digits: Count = 3) -> None:
    """Stage: ``sizes.csv``, a row per policy: its millions of weights."""
    rows = []
    for name, folder in policies.items():
        policy = Policy.load_for_eval(folder)
        weights = sum(weight.numel() for weight in policy.parameters())
        rows.append({"policy": name, "millions": round(weights / 1e6, digits)})
    write_table(Path(out) / "sizes.csv", rows)
'''


def test_a_new_evaluation_is_one_file(
    build: Callable[..., Policy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sizes.py").write_text(EVALUATION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    policy = build()
    policy.save("policy")
    pipeline = {
        "stages": {
            "sizes": {
                "call": "sizes.write_sizes",
                "args": {"policies": {"tiny": "policy"}, "digits": 6},
            },
            "tables": {
                "call": "alignlab.stages.collect.collect_tables",
                "needs": ["sizes"],
                "args": {
                    "results": "{results}",
                    "tables": {"sizes.csv": {"folders": "{sizes}", "file": "sizes.csv"}},
                },
            },
        }
    }
    Path("mine").mkdir()
    Path("mine/pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    assert run_experiment(Path("mine"), workers=1) == 0, capsys.readouterr()
    (row,) = read_table(Path("results/mine/sizes.csv"))
    weights = sum(weight.numel() for weight in policy.parameters())
    assert row == {"stage": "sizes", "policy": "tiny", "millions": f"{weights / 1e6:.6f}"}
