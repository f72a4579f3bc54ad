"""``--watch``: the report while runs are made, on a folder whose call is this test."""

import os
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.report.gather import Findings
from alignlab.report.live import watch
from alignlab.results.progress import Progress, progress_file, write_progress
from tests.report.test_page import findings

PROGRESS = Progress(
    pid=os.getpid(), at="14:03:20", finished=3, total=12, left="about 02:10 left",
    at_work=["dpo-s1 (step 5 of 60)"], failed={"ppo-<s0>": "FloatingPointError: loss is nan"},
)  # fmt: skip


class Call:
    """A call that goes on for some looks at its folder, and what the page said at each."""

    def __init__(self, folder: Path, looks: int, *, draws: bool = False) -> None:
        self.folder, self.looks, self.draws = folder, looks, draws
        self.page = folder / "report.html"
        self.said: list[str] = []
        self.gathered = 0
        write_progress(folder, PROGRESS)

    def sleep(self, seconds: float) -> None:
        assert seconds == 10.0
        self.said.append(self.page.read_text() if self.page.exists() else "")
        self.looks -= 1
        if self.looks == 1:
            (self.folder / "points.csv").write_text("more")
        if self.looks == 0:
            progress_file(self.folder).unlink()
            if self.draws:
                self.page.write_text("the call's own")

    def gather(self) -> Findings:
        self.gathered += 1
        if not (self.folder / "points.csv").exists():
            raise DataError("points.csv: no such table.")
        return findings()


def test_the_page_has_the_progress_until_the_call_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Call(tmp_path, looks=4)
    watch(tmp_path, call.page, call.gather, sleep=call.sleep)
    assert call.said[:3] == ["", "", ""]  # no evaluation yet
    assert capsys.readouterr().out.count("Waiting: points.csv: no such table.") == 1
    for words in (
        "3 of 12 jobs done, about 02:10 left",
        "At work: dpo-s1 (step 5 of 60)",
        "<strong>ppo-&lt;s0&gt;</strong>: FloatingPointError: loss is nan",
        "(at 14:03:20; this page reads itself again every 15 seconds)",
    ):
        assert words in call.said[3]
    assert 'id="live"' not in call.page.read_text()
    assert {path.name for path in tmp_path.glob("*.*")} == {"points.csv", "report.html"}


def test_points_that_did_not_change_are_not_gathered_again(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("some")
    call = Call(tmp_path, looks=5)
    watch(tmp_path, call.page, call.gather, sleep=call.sleep)
    assert call.gathered == 3  # at first, when the table grew, and at the end


def test_the_calls_own_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("some")
    call = Call(tmp_path, looks=2, draws=True)
    watch(tmp_path, call.page, call.gather, sleep=call.sleep)
    assert call.page.read_text() == "the call's own"


def test_a_folder_without_a_call_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no 'alignlab run' or 'alignlab sweep' is at work in"):
        watch(tmp_path, tmp_path / "report.html", findings)
