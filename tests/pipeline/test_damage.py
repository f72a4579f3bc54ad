"""What a job wrote is looked at before another job reads it; what is damaged is made again."""

import csv
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import DataError
from alignlab.files import read_record
from alignlab.pipeline import run_experiment
from alignlab.pipeline.jobs import carry_out
from alignlab.pipeline.messages import Reporter
from alignlab.pipeline.records import merge
from alignlab.pipeline.scheduler import message
from alignlab.plan.experiment import load_plan
from alignlab.plan.state import frontier_is_drawn, is_done, missing, what_to_do
from alignlab.report.read import read_results
from alignlab.results.pool import POOL_NAME
from alignlab.results.run_records import drop_damaged_rows
from alignlab.results.tables import POINT_COLUMNS
from tests.pipeline import fake_stages
from tests.pipeline.test_run import FRONTIER, stages, without_seconds
from tests.test_files import flip

Write = Callable[..., Path]
RESULTS = Path("results/demo")
SFT = RESULTS / "stages/sft/all"


def one_more() -> dict[str, Any]:
    more = stages()
    more["dpo"]["grid"] = {"beta": [0.5, 2.0, 4.0]}
    return more


def test_a_flipped_bit_in_an_input_is_found_before_it_is_read(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write(), only="dpo")
    flip(SFT / "words.txt", 0)
    capsys.readouterr()
    assert run_experiment(Path("demo"), only="dpo") == 0
    assert "Nothing to do" in capsys.readouterr().err  # nobody reads it, and the rows stand
    assert run_experiment(write(one_more()), only="dpo") == 0
    said = capsys.readouterr().err
    assert "sft: words.txt is not what was written; it is made again\n" in said
    assert "3 of 8 jobs to do (sft 1, dpo 2)" in said
    assert (SFT / "words.txt").read_text() == "a"


def test_a_bit_that_a_disk_flipped_is_found_by_whoever_reads_it(write: Write) -> None:
    """Size and times are as they were: only the content tells."""
    run_experiment(write(), only="sft")
    plan = load_plan(Path("demo"))
    assert missing(plan, ["sft"]) == ([], [])
    (SFT / "words.txt").unlink()
    assert missing(plan, ["sft"]) == ([plan.jobs["sft"]], [])
    record = read_record(SFT / "done.json")
    assert record is not None
    was = record["files"]["words.txt"]
    (SFT / "words.txt").write_text("b")
    os.utime(SFT / "words.txt", ns=(was["mtime_ns"], was["mtime_ns"]))
    assert is_done(plan, plan.jobs["sft"])
    said = ["sft: words.txt is not what was written; it is made again"]
    assert missing(plan, ["sft"]) == ([plan.jobs["sft"]], said)


@pytest.mark.parametrize("content", ["", "{}", '{"config_sha": 1'])
def test_a_damaged_record_is_a_job_to_do(
    write: Write, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    run_experiment(write(frontier=FRONTIER), only="sft")
    (SFT / "done.json").write_text(content)
    capsys.readouterr()
    assert run_experiment(Path("demo"), only="sft") == 0
    assert "sft: done.json is damaged; it is made again" in capsys.readouterr().err
    assert read_record(SFT / "done.json") is not None


def test_a_changed_number_in_a_record_does_not_reach_the_table(write: Write) -> None:
    run_experiment(write(), only="dpo")
    before = without_seconds(RESULTS / "points.csv")
    for path in RESULTS.rglob("stages/dpo/*/done.json"):
        record = json.loads(path.read_text())
        record["points"][0]["reward"] += 1.0
        path.write_text(json.dumps(record))
    (RESULTS / "points.csv").unlink()
    assert run_experiment(Path("demo"), only="dpo") == 0
    assert without_seconds(RESULTS / "points.csv") == before


def test_who_deletes_logs_undoes_nothing_but_a_changed_one_is_not_read(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = stages() | {
        "reader": {"call": "tests.pipeline.fake_stages.write_words", "needs": ["dpo-beta2-s0"],
                   "args": {"words": ["{dpo-beta2-s0}"]}},
    }  # fmt: skip
    log = RESULTS / "stages/dpo/beta2-s0/train/points/step-000010.parquet"
    run_experiment(write(), only="dpo")
    flip(log, 100)
    capsys.readouterr()
    run_experiment(write(reader), only="reader")
    said = capsys.readouterr().err
    assert "dpo-beta2-s0: train/points/step-000010.parquet is not what was written" in said
    log.unlink()
    run_experiment(write(reader), only="reader", force=True)
    assert "1 of 7 jobs to do (reader 1)" in capsys.readouterr().err


def test_a_frontier_that_was_changed_is_drawn_again(write: Write) -> None:
    run_experiment(write(frontier=FRONTIER))
    for name in ("frontier.csv", "comparisons.csv"):
        right = (RESULTS / name).read_bytes()
        flip(RESULTS / name, len(right) // 2)
        assert run_experiment(Path("demo")) == 0
        assert (RESULTS / name).read_bytes() == right
    record = RESULTS / "configs" / "frontier.json"  # committed ones of old have no seal
    content = read_record(record)
    assert content is not None
    record.write_text(json.dumps({"inputs_sha": content["inputs_sha"]}))
    plan = load_plan(Path("demo"))
    assert frontier_is_drawn(plan)
    record.write_text(json.dumps({"inputs_sha": content["inputs_sha"][::-1]}))
    assert not frontier_is_drawn(plan)


def mended() -> list[str]:
    """Mend the tables as a run does before anything else; names of the runs to make again."""
    drop_damaged_rows(RESULTS)
    plan = load_plan(Path("demo"), seeds=[0])
    todo = what_to_do(plan, only="dpo")
    for job in todo.unmerged:
        merge(plan, job)
    return [job.name for job in todo.jobs if job.objective is not None]


def test_no_changed_cell_of_the_table_passes(write: Write) -> None:
    """Rows come back from the record of the run; where only tables are left, by a new run."""
    run_experiment(write(), only="dpo", seeds=[0])
    points = RESULTS / "points.csv"
    right = points.read_bytes()
    lines = right.decode().splitlines()
    other = {"hparams": '{"beta":0.7}', "step": "21", "run_id": "dpo-beta0.4-s0"}
    (RESULTS / "stages").rename("away")
    for column in POINT_COLUMNS:
        cells = next(csv.reader([lines[2]]))
        cells[POINT_COLUMNS.index(column)] = other.get(column, "9")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        wrong = "\n".join([*lines[:2], text.getvalue().rstrip("\n"), *lines[3:], ""])
        points.write_text(wrong)
        assert mended() == ["dpo-beta0.5-s0"], column
        assert (RESULTS / "points.damaged.csv").read_text() == wrong
        Path("away").rename(RESULTS / "stages")
        assert mended() == [], column
        assert points.read_bytes() == right
        (RESULTS / "stages").rename("away")


def test_no_changed_bit_of_the_tables_passes(write: Write) -> None:
    run_experiment(write(), only="dpo", seeds=[0])
    rng = random.Random(0)
    (run,) = (RESULTS / "points").glob("*beta2-s0.parquet")
    for path in (RESULTS / "points.csv", run, run.with_suffix(".json")):
        right = path.read_bytes()
        first = len(",".join(POINT_COLUMNS)) + 1 if path.suffix == ".csv" else 0
        for _ in range(20):
            flip(path, rng.randrange(first, len(right)))
            again = mended()
            if path.suffix != ".parquet":  # which one worker makes of the run's own evaluations
                assert (again, path.read_bytes()) == ([], right)
            else:
                assert again == ["dpo-beta2-s0"]
                path.write_bytes(right)


def test_a_per_prompt_table_is_made_again_without_training(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_experiment(write(), only="dpo", seeds=[0])
    table = RESULTS / "points" / "dpo-beta2-s0.parquet"
    right, seconds = table.read_bytes(), (RESULTS / "points.csv").read_bytes()
    monkeypatch.setattr(fake_stages, "train", None)  # what is not there cannot be called
    plan = load_plan(Path("demo"), seeds=[0])
    for damage in (lambda: flip(table, 99), table.unlink):
        damage()
        (job,) = what_to_do(plan, only="dpo").jobs
        carry_out(message(plan, job, "unknown", fresh=False), Reporter(None))
        merge(plan, job)
        assert (table.read_bytes(), (RESULTS / "points.csv").read_bytes()) == (right, seconds)


def test_another_header_is_a_table_of_another_version(write: Write) -> None:
    run_experiment(write(), only="dpo", seeds=[0])
    points = RESULTS / "points.csv"
    points.write_text(points.read_text().replace("kl_se", "kl_sd", 1))
    with pytest.raises(DataError, match=r"columns do not match; missing: kl_se; unknown: kl_sd"):
        run_experiment(Path("demo"), only="dpo", seeds=[0])


def test_a_frontier_is_not_drawn_from_changed_tables(write: Write) -> None:
    run_experiment(write(frontier=FRONTIER), seeds=[0])
    table, pool = RESULTS / "points" / "dpo-beta2-s0.parquet", RESULTS / "stages/pool/all"
    for path, what in ((table, "points/dpo-beta2-s0.parquet"), (pool / POOL_NAME, POOL_NAME)):
        flip(path, 99)
        with pytest.raises(DataError, match=f"{what} is not what was written"):
            read_results([RESULTS])
        flip(path, 99)
    read_results([RESULTS])
    points = RESULTS / "points.csv"
    points.write_text(points.read_text().replace(",8,32,", ",9,32,"))
    with pytest.raises(DataError, match=r"the rows of dpo-beta0\.5-s0 in .* are not what"):
        read_results([RESULTS])


def test_configs_and_times_that_were_changed_are_written_again(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(write(), only="dpo")
    config, times = RESULTS / "configs" / "dpo-beta2-s0.yaml", RESULTS / "stages.csv"
    right = config.read_bytes(), times.read_bytes()
    config.write_bytes(right[0].replace(b"beta: 2", b"beta: 3"))
    flip(times, len(right[1]) - 3)
    capsys.readouterr()
    assert run_experiment(Path("demo"), only="dpo") == 0
    said = capsys.readouterr().err
    assert (config.read_bytes(), times.read_bytes()) == right
    assert "Nothing to do" in said
    config.write_bytes(right[0][:-5])
    assert run_experiment(Path("demo"), only="dpo") == 0
    assert f"{config} is not what was written; it is written again" in capsys.readouterr().err
    assert config.read_bytes() == right[0]
    config.write_bytes(b"# of a version without a hash\n")  # as committed
    assert run_experiment(Path("demo"), only="dpo") == 0
    assert config.read_bytes() == b"# of a version without a hash\n"
