"""The sweeps that come with the repository, against the signatures they will meet."""

import re
from pathlib import Path

import pytest

from alignlab.pipeline.jobs import check
from alignlab.sweep.spec import load_sweep

SWEEPS = sorted(Path("sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_a_sweep_says_what_it_is_for_and_every_key_is_accepted(path: Path) -> None:
    header = path.read_text().splitlines()[:4]
    for line, word in zip(header, ("# ", "# Run:", "# Expected:", "# Source:"), strict=True):
        assert line.startswith(word)
    command, cost = header[1].split(". ", 1)
    assert f"alignlab sweep {path}" in command
    assert re.search(r"\b\d+(\.\d+)? (s|min|hours?|(core|GPU)-(minutes|hours?))\b", cost), cost
    sweep = load_sweep(path)
    specs = sweep.to_check()
    assert check(specs) == {}
