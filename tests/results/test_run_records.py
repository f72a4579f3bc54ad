"""Records of runs: every way to damage rows, table or record is found and named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignlab.files import DONE, LAST, TEMP_SUFFIX, stamp
from alignlab.results.run_records import (
    POINTS,
    damage,
    drop_damaged_rows,
    has_output,
    keep_record,
    record_of,
    remove_leftovers,
    rows_by_run,
    table_of,
)
from alignlab.results.tables import Point, write_points

ROW = Point(
    experiment="demo", objective="dpo", run_id="dpo-s0", seed=0, step=1, hparams={}, kl=0.5,
    kl_se=0.1, kl_k1=0.5, kl_k1_se=0.1, reward=1.0, reward_se=0.1, proxy_reward=None, length=3.0,
    n_prompts=1, n_samples=1, config_sha="c", git_sha="g", seconds=1.0,
)  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two rows of one run and one of another, each with its table and its record."""
    rows = [ROW, replace(ROW, step=2), replace(ROW, run_id="dpo-s1", seed=1)]
    write_points(tmp_path / POINTS, rows)
    for name in ("dpo-s0", "dpo-s1"):
        table_of(tmp_path, name).parent.mkdir(exist_ok=True)
        table_of(tmp_path, name).write_text(name)
        done: dict[str, Any] = {"config_sha": "c", "metrics": {}, "stopped": None, "secret": 1}
        keep_record(tmp_path, name, done | {"table": stamp(table_of(tmp_path, name))})
    return tmp_path


def damage_of(results: Path) -> str | None:
    return damage(results, "dpo-s0", rows_by_run(results)["dpo-s0"])


def test_rows_belong_to_runs(results: Path) -> None:
    steps = {name: [row.step for row in rows] for name, rows in rows_by_run(results).items()}
    assert steps == {"dpo-s0": [1, 2], "dpo-s1": [1]}
    assert rows_by_run(results / "elsewhere") == {}


def test_each_damage_is_named(results: Path) -> None:
    assert damage_of(results) is None
    assert "secret" not in record_of(results, "dpo-s0").read_text()
    table, record = table_of(results, "dpo-s0"), record_of(results, "dpo-s0")
    table.write_text("others")  # as long as before
    assert damage_of(results) == f"{table} is not what was written"
    table.write_text("dpo-s0")
    text = record.read_text()
    record.write_text(text.replace('"c"', '"d"'))
    assert damage_of(results) == f"{record} is damaged"
    record.unlink()
    assert damage_of(results) is None  # a table from before there were records
    record.write_text(text)
    table.unlink()
    assert damage_of(results) == f"{table} is missing"


def test_a_changed_row_is_dropped_and_the_run_is_found_damaged(results: Path) -> None:
    path = results / POINTS
    path.write_text(path.read_text().replace("dpo,dpo-s0,0,2", "dpo,dpo-s0,0,3"))
    assert "the rows of dpo-s0 in" in str(damage_of(results))
    assert "dpo-s0" in drop_damaged_rows(results)[0]
    assert {name: len(rows) for name, rows in rows_by_run(results).items()} == {
        "dpo-s0": 1,
        "dpo-s1": 1,
    }
    assert drop_damaged_rows(results) == []


def test_leftovers_are_half_written_files_and_checkpoints_of_finished_runs(tmp_path: Path) -> None:
    stages = tmp_path / "stages" / "dpo"
    for name in ("done", "running"):
        (stages / name / "train").mkdir(parents=True)
        (stages / name / "train" / LAST).touch()
    (stages / "done" / DONE).write_text("{}")
    (stages / "running" / f"x{TEMP_SUFFIX}").touch()
    (tmp_path / f"folder{TEMP_SUFFIX}").mkdir()
    remove_leftovers(tmp_path)
    kept = {str(p.relative_to(stages)) for p in stages.rglob("*") if p.is_file()}
    assert kept == {f"done/{DONE}", f"running/train/{LAST}"}
    assert not (tmp_path / f"folder{TEMP_SUFFIX}").exists()


@pytest.mark.parametrize("made", ["stages/sft/all/train/last.ckpt", "stages/sft/all/words.txt",
                                  "trials.csv", "configs/sft.yaml"])  # fmt: skip
def test_starts_of_jobs_are_no_output(tmp_path: Path, made: str) -> None:
    begun = ["configs/commands.txt", "stages/logs/check.log", ".lock", "study.db"]
    for name in [*begun, "stages/sft/all/job.json", "stages/sft/all/config.yaml", made]:
        assert not has_output(tmp_path)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert has_output(tmp_path)
