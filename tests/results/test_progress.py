"""The note of how far a call is."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from alignlab.results.progress import Progress, progress_file, read_progress, write_progress

ONE = Progress(pid=1, at="14:03:20", finished=3, total=12, left="about 2 min", failed={"a": "b"})


def test_a_note_of_a_living_process_comes_back_and_others_do_not(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, ONE)  # the first process of a machine always lives
    assert read_progress(tmp_path) == ONE
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    write_progress(tmp_path, replace(ONE, pid=ended.pid))
    assert read_progress(tmp_path) is None


def test_what_is_no_note_is_none(tmp_path: Path) -> None:
    write_progress(tmp_path, ONE)
    path = progress_file(tmp_path)
    for text in ("{", "[]", json.dumps({"pid": 1})):
        path.write_text(text)
        assert read_progress(tmp_path) is None
