"""What a job wrote is looked at before another job reads it; what is damaged is made again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.files import read_record
from alignlab.pipeline import run_experiment
from alignlab.pipeline.plan import load_plan
from alignlab.pipeline.state import frontier_is_drawn, is_done, missing
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
