"""What a sweep will cost, before it costs anything."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.sweep import run_sweep
from tests.sweep.test_run import Write


def test_a_dry_run_makes_nothing(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_sweep(write(), dry_run=True) == 0
    said = capsys.readouterr().out
    assert "4 trials (grid), 2 seeds each, 8 runs\n  dpo: beta=0.5\n" in said
    assert "inputs in results/demo: sft, pool to make" in said
    assert "time and disk: unknown, because no run of dpo is finished" in said
    assert not Path("results").exists()
    run_sweep(Path("try.yaml"))
    capsys.readouterr()
    run_sweep(Path("try.yaml"), dry_run=True)
    said = capsys.readouterr().out
    assert "inputs in results/demo: all there" in said
    assert "time: about 0.0 minutes; disk: about 0 MB" in said
    with pytest.raises(ConfigError, match=r"arm dpo, betta: 1\.0: call"):
        run_sweep(write(space={"betta": [1.0]}), dry_run=True)
