"""What a job leaves behind."""

from pathlib import Path

import pytest

from alignlab.pipeline import run_experiment
from alignlab.pipeline.jobs import collect_points
from tests.pipeline import fake_stages
from tests.pipeline.test_run import HERE, Write


def test_a_run_without_an_evaluation_is_an_error(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"one": {"call": f"{HERE}.write_words", "objective": "x", "args": {"words": []}}}
    assert run_experiment(write(content)) == 2
    assert "one left no evaluation" in capsys.readouterr().err
    assert not Path("results/demo/points.csv").exists()


def test_a_run_with_an_evaluation_that_is_no_number_leaves_no_rows(tmp_path: Path) -> None:
    (tmp_path / "words.txt").touch()
    (tmp_path / "run").mkdir()
    fake_stages.train(tmp_path / "run", str(tmp_path), seed=0, beta=1.0, wild=True)
    table = tmp_path / "dpo.parquet"
    names = {"experiment": "e", "config_sha": "c", "git_sha": "g", "prompt_table": str(table)}
    run = {"objective": "dpo", "run_id": "dpo", "seed": 0, "hparams": {}} | names
    with pytest.raises(FloatingPointError, match=r"step 20 has KL nan, .* the weights have diver"):
        collect_points({"name": "dpo", "run": run}, tmp_path / "run")
    assert not table.exists()
