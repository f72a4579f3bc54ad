"""What a job reports."""

from multiprocessing import Pipe
from typing import Any

import pytest

from alignlab.pipeline.messages import Reporter


def test_progress_that_comes_too_often_is_dropped_but_the_last_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([10.0, 10.1, 10.6, 10.7])
    monkeypatch.setattr("alignlab.pipeline.messages.time.monotonic", clock.__next__)
    heard, out = Pipe(duplex=False)
    reporter = Reporter(out)
    for step in (1, 2, 3, 4):
        reporter.progress(step, 4)
    reporter.evaluated(4, {"kl": 0.5})
    monkeypatch.undo()
    sent: list[dict[str, Any]] = []
    while heard.poll():
        sent.append(heard.recv())
    assert [message.get("step") for message in sent] == [1, 3, 4, 4]
    assert sent[-1] == {"event": "evaluated", "step": 4, "metrics": {"kl": 0.5}}


def test_only_the_job_that_is_meant_stops() -> None:
    reporter = Reporter(None)
    reporter.stop("dpo-beta1-s0", "pruned at step 10")
    assert reporter.why_stop("dpo-beta1-s0") == "pruned at step 10"
    assert reporter.why_stop("dpo-beta2-s0") is None
