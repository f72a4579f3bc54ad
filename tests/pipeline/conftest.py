"""Experiments of fake stages, in a folder of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.test_run import ROOT, stages

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes ``demo/pipeline.yaml``; the current folder is where ``results/`` appears."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # no commit made meanwhile can change a table

    def to_file(content: dict[str, Any] | None = None, **more: Any) -> Path:
        (tmp_path / "demo").mkdir(exist_ok=True)
        plan = {"seeds": [0, 1], "stages": stages() if content is None else content} | more
        (tmp_path / "demo" / "pipeline.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        return Path("demo")

    return to_file
