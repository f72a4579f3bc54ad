"""A worker process, spoken to as its parent does."""

import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from tests.pipeline.test_run import HERE, ROOT


def test_a_worker_reports_on_every_job_and_ends_with_its_connection(tmp_path: Path) -> None:
    line, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "alignlab.pipeline.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )

    def reports(name: str, call: str, args: dict[str, Any]) -> dict[str, Any]:
        job: dict[str, Any] = {
            "name": name, "config_sha": name, "git_sha": "g", "fresh": False, "run": None,
        }  # fmt: skip
        job |= {"log": str(tmp_path / f"{name}.log"), "folder": str(tmp_path / name)}
        job |= {"spec": {"call": f"{HERE}.{call}", "args": args}}
        line.send(job)
        while True:
            report: dict[str, Any] = line.recv()
            if report["event"] in ("done", "failed"):
                return report

    assert line.recv() == {"event": "ready"}
    assert reports("good", "write_words", {"words": ["a"]}) == {"event": "done", "wrong_input": {}}
    assert (tmp_path / "good" / "words.txt").read_text() == "a"
    wrong = {"wrong": "rows.jsonl: no usable row"}
    assert reports("wrong", "fail", {"kind": "input"}) == {"event": "failed", "wrong_input": wrong}
    assert reports("bug", "fail", {"kind": "bug"})["message"] == "RuntimeError: a bug"
    assert "Traceback" in (tmp_path / "bug.log").read_text()
    line.close()
    assert process.wait(timeout=60) == 0
