"""A worker process: reads jobs from its standard input, does them one after another, reports.

Heavy libraries are imported once per worker and then serve many jobs. A worker never outlives the
process that started it: when its input closes, it stops at once, whatever it is doing.

A run on several devices starts this program again for each further rank, with the job in its
environment. Such a rank does not talk to the parent: only the worker does, and the ranks follow it.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from alignlab.pipeline.messages import ALIVE, BEAT

REPORT_EVERY = 0.5  # seconds between two reports of progress
JOB, RANK = "ALIGNLAB_JOB", "LOCAL_RANK"  # what a further rank finds in its environment


class PipeReporter:
    """Sends messages to the parent, one JSON object a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last = 0.0
        self._stops: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send one message now."""
        with self._one_at_a_time:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()

    def show_life(self) -> None:
        """Say that this process runs, whatever its job is doing, for ever."""
        while True:
            time.sleep(BEAT)
            self.send(event=ALIVE)

    def progress(self, step: int, total: int) -> None:
        """Say how far the job is (``total`` 0: unknown); most of many calls are dropped."""
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY or step == total:
            self._last = now
            self.send(event="progress", step=step, total=total)

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """Say what an evaluation found; the parent may answer that the job should stop."""
        self.send(event="measured", step=step, metrics=metrics)

    def say(self, line: str) -> None:
        """Have the parent show a line."""
        self.send(event="said", line=line)

    def stop(self, name: str, why: str) -> None:
        """The parent wants job ``name`` to stop."""
        self._stops[name] = why

    def why_stop(self, name: str) -> str | None:
        """Why job ``name`` should stop, if it should."""
        return self._stops.get(name)


class NullReporter:
    """The parent, as further ranks see it: nobody listens, nobody tells them anything."""

    def progress(self, step: int, total: int) -> None:
        """Nothing: the worker tells the parent."""

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing: likewise."""

    def say(self, line: str) -> None:
        """Nothing: likewise."""

    def why_stop(self, name: str) -> str | None:
        """None: the worker is asked, and its answer counts for all ranks."""


def main() -> None:
    """Serve jobs until the input closes; as a further rank, take part in one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if JOB in os.environ and RANK in os.environ:
        _take_part(json.loads(os.environ[JOB]))
        return
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    reporter = PipeReporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    # Library output goes to the job's log, not between the messages.
    os.dup2(2, 1)
    threading.Thread(target=_listen, args=(inbox, reporter), daemon=True).start()
    threading.Thread(target=reporter.show_life, daemon=True).start()
    reporter.send(event="ready")
    while True:
        _serve(inbox.get(), reporter)


def _listen(inbox: "queue.Queue[dict[str, Any]]", reporter: PipeReporter) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            reporter.stop(message["stop"], message["why"])
        else:
            inbox.put(message)
    os._exit(0)  # the parent is gone or done with us; half-done work is redone from its checkpoint


def _serve(job: dict[str, Any], reporter: PipeReporter) -> None:
    from alignlab.errors import ConfigError, DataError, failure
    from alignlab.pipeline.jobs import carry_out

    _log_to(Path(job["log"]))
    os.environ[JOB] = json.dumps(job)
    try:
        wrong = carry_out(job, reporter)
    except (ConfigError, DataError) as error:
        reporter.send(event="failed", wrong_input={job["name"]: str(error)})
    except Exception as error:  # not SystemExit: a terminated worker's job is tried again
        traceback.print_exc()
        reporter.send(event="failed", wrong_input={}, message=failure(error))
    else:
        reporter.send(event="done", wrong_input=wrong)


def _take_part(job: dict[str, Any]) -> None:
    from alignlab.pipeline.training import take_part

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    take_part(job, Path(job["folder"]), NullReporter())


def _end_with(parent: int) -> None:
    """A rank whose worker is gone would wait for it for ever."""
    while os.getppid() == parent:
        time.sleep(REPORT_EVERY)
    os._exit(1)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    main()
