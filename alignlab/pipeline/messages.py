"""Messages from a worker to the pipeline's process: dicts through its own connection."""

import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

ALIVE, BEAT = "alive", 2.0  # a worker's sign of life, and the seconds between two
REPORT_EVERY = 0.5  # seconds between two reports of progress


class Reporter:
    """Sends a job's reports to the pipeline's process.

    Args:
        out: Where messages go. ``None`` for a further rank of a run: its worker reports, and asks
            whether to stop, for all ranks.
    """

    def __init__(self, out: Connection | None) -> None:
        self._out = out
        self._last = 0.0
        self._stops: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send one message now."""
        with self._one_at_a_time:
            if self._out is not None:
                self._out.send(message)

    def progress(self, step: int, total: int) -> None:
        """Report that ``step`` of ``total`` steps (0: unknown) are done, at most twice a second."""
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY or step == total:
            self._last = now
            self.send(event="progress", step=step, total=total)

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Report the ``metrics`` of an evaluation after ``step``, which may stop the job."""
        self.send(event="evaluated", step=step, metrics=metrics)

    def say(self, line: str) -> None:
        """Print a line through the pipeline's process."""
        self.send(event="said", line=line)

    def stop(self, name: str, why: str) -> None:
        """Note that the pipeline's process wants job ``name`` to stop."""
        self._stops[name] = why

    def why_stop(self, name: str) -> str | None:
        """Why job ``name`` should stop, if it should."""
        return self._stops.get(name)


class Trained(NamedTuple):
    """The result of a finished training run.

    Attributes:
        seconds: Of training, summed over continuations.
        metrics: What was logged last, name -> value.
        stopped: Why it ended before its last step, if it did.
    """

    seconds: float
    metrics: dict[str, float]
    stopped: str | None
