"""The parent's side of worker processes: start and end them, send jobs, receive reports.

Python's own pools do not fit: a worker that dies breaks ``ProcessPoolExecutor`` as a whole, and
neither it nor ``multiprocessing.Pool`` reports progress, stops one job, or gives workers the lock.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from alignlab.pipeline.messages import ALIVE, BEAT
from alignlab.plan.experiment import Job

PAUSE = 5 * BEAT  # seconds of a pause of this process that excuse silent workers


@dataclass(eq=False)
class Worker:
    """One worker process and its current job."""

    number: int
    process: "subprocess.Popen[bytes]"
    line: Connection
    job: Job | None = None
    progress: tuple[int, int] | None = None
    heard: float = field(default_factory=time.monotonic)  # when it last gave a sign of life
    warned_of: bool = False  # a warning was printed that it gives none

    def start(self, job: Job, message: Mapping[str, Any]) -> None:
        """Send it ``job``."""
        self.job, self.progress, self.warned_of = job, None, False
        self.send(message)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send ``message``; if the worker has just died, ``receive`` notices it."""
        with contextlib.suppress(OSError):
            self.line.send(message)


class WorkerPool:
    """A fixed number of worker processes, each with a connection.

    Args:
        size: Workers at a time.
        log: File for what a worker prints before it has a job.
        lock_fd: File descriptor of the results folder's lock. Workers hold it too, so that the
            lock is free only once the last of them has gone.
    """

    def __init__(self, size: int, log: Path, lock_fd: int) -> None:
        self._log, self._lock_fd = log, lock_fd
        self._looked = time.monotonic()
        self.workers = [self._start(number) for number in range(size)]

    def idle(self) -> list[Worker]:
        """Workers without a job."""
        return [worker for worker in self.workers if worker.job is None]

    def receive(self, timeout: float) -> tuple[Worker, dict[str, Any] | None] | None:
        """The next message; ``(worker, None)`` when it died; ``None`` if there is no news."""
        ready = wait([worker.line for worker in self.workers], timeout)
        for worker in (each for each in self.workers if each.line in ready):
            worker.heard = time.monotonic()
            try:
                message = worker.line.recv()
            except (EOFError, OSError):
                return worker, None
            if message["event"] != ALIVE:
                return worker, message
        return None

    def silent(self, seconds: float) -> list[Worker]:
        """Workers with a job that gave no sign of life for ``seconds``."""
        now = time.monotonic()
        if now - self._looked > PAUSE:  # this process was paused, and perhaps all
            for worker in self.workers:
                worker.heard = now
        self._looked = now
        return [w for w in self.workers if w.job is not None and now - w.heard > seconds]

    def replace(self, old: Worker) -> int:
        """Replace a worker that died or is used up; returns the old one's exit status."""
        old.line.close()
        self.workers[old.number] = self._start(old.number)
        return old.process.wait()

    def close(self) -> None:
        """Stop all workers, whatever they are doing, and wait until they are gone."""
        for worker in self.workers:
            worker.line.close()
        for worker in self.workers:
            worker.process.wait()

    def _start(self, number: int) -> Worker:
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = Pipe()
        with theirs, self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "alignlab.pipeline.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**one_thread, **os.environ, "TOKENIZERS_PARALLELISM": "false"},
                pass_fds=(self._lock_fd, theirs.fileno()),
            )
        return Worker(number, process, ours)
