"""What is kept of finished jobs, beside the rows of runs (see ``tests/results``)."""

from pathlib import Path

from alignlab.files import DONE, write_record
from alignlab.pipeline.records import keep_command, write_times
from alignlab.plan.experiment import Job, Plan
from alignlab.report.read import read_commands


def test_commands_are_kept_once_and_as_they_were_called(tmp_path: Path) -> None:
    """An argument may hold what Unicode calls the end of a line."""
    words = ["run", "experiments/quickstart", "--only", "a\x85b\u2028c"]
    keep_command(tmp_path, words)
    keep_command(tmp_path, words)
    keep_command(tmp_path, ["frontier"])
    assert read_commands([tmp_path, tmp_path]) == [
        "alignlab run experiments/quickstart --only 'a\x85b\u2028c'",
        "alignlab frontier",
    ]


def test_times_of_other_seeds_stay_and_damaged_lines_go(tmp_path: Path) -> None:
    job = Job("dpo", "s0", 0, {}, "dpo", {}, {}, "sha")
    plan = Plan("demo", Path("demo"), tmp_path, (0,), {job.name: job}, {}, (), {})
    write_record(plan.folder(job) / DONE, {"seconds": 2.34})
    before = "stage,job,seconds\ndpo,s0,9.9\ndpo,s1,8.0\ndpo,s2,\x00\n"
    (tmp_path / "stages.csv").write_text(before)
    write_times(plan)
    after = "stage,job,seconds\ndpo,s0,2.3\ndpo,s1,8.0\n"
    assert (tmp_path / "stages.csv").read_text() == after
