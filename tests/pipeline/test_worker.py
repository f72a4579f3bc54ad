"""A worker process, spoken to as its parent does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipeline.test_run import HERE, ROOT


def test_a_worker_reports_on_every_job_and_ends_with_its_input(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "alignlab.pipeline.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def reports(name: str, call: str, args: dict[str, Any]) -> dict[str, Any]:
        job: dict[str, Any] = {"name": name, "config_sha": name, "fresh": False, "run": None}
        job |= {"log": str(tmp_path / f"{name}.log"), "folder": str(tmp_path / name)}
        job |= {"spec": {"call": f"{HERE}.{call}", "args": args}}
        print(json.dumps(job), file=process.stdin, flush=True)
        for line in process.stdout or ():
            report: dict[str, Any] = json.loads(line)
            if report["event"] in ("done", "failed"):
                return report
        raise AssertionError("the worker is gone")

    assert json.loads(process.stdout.readline()) == {"event": "ready"}
    assert reports("good", "write_words", {"words": ["a"]}) == {"event": "done", "wrong_input": {}}
    assert (tmp_path / "good" / "words.txt").read_text() == "a"
    wrong = {"wrong": "rows.jsonl: no usable row"}
    assert reports("wrong", "fail", {"kind": "input"}) == {"event": "failed", "wrong_input": wrong}
    assert reports("bug", "fail", {"kind": "bug"})["message"] == "RuntimeError: a bug"
    assert "Traceback" in (tmp_path / "bug.log").read_text()
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
