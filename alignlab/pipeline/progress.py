"""Show a pipeline's progress: bars, or plain lines without a terminal."""

import os
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from tqdm import tqdm

from alignlab.pipeline.worker_pool import Worker
from alignlab.plan.experiment import Job
from alignlab.results.progress import Progress

LINE_EVERY = 30.0  # seconds between two lines where there is no terminal
OVERALL = "{l_bar}{bar}| {elapsed}, {remaining} left"
STEPS = "  {l_bar}{bar}| step {n_fmt} of {total_fmt}, {remaining} left"
NO_STEPS = "  {desc} {elapsed}"


def say(line: str) -> None:
    """Print a line for the user to standard error; results go to standard output."""
    print(line, file=sys.stderr, flush=True)


class Display:
    """Overall and per-worker progress on standard error.

    Args:
        total: Jobs to do.
        workers: Workers at a time.
        length: Training runs of all jobs; a tuning job has one per trial. Default: one per job.
    """

    def __init__(self, total: int, workers: int, length: int | None = None) -> None:
        self.total = total
        self.finished = self._runs = 0
        self._more = 0 if length is None else length - total
        self._began = self._spoke = time.monotonic()
        self._overall: tqdm[NoReturn] | None = None
        self._bars: list[tqdm[NoReturn]] = []
        if sys.stderr.isatty():
            self._overall = tqdm(total=total, position=0, bar_format=OVERALL)
            self._bars = [
                tqdm(total=0, position=place + 1, leave=False, bar_format=NO_STEPS)
                for place in range(workers)
            ]

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        tqdm.write(line, file=sys.stderr)

    def finished_one(self, job: Job, seconds: float) -> None:
        """Count and print a finished job."""
        self.finished += 1
        self._runs += job.length
        self.say(f"[{self.finished}/{self.total}] {job.name} done in {seconds:.0f} s")

    def update(self, workers: Sequence[Worker]) -> None:
        """Show the progress of every worker."""
        if self._overall is not None:
            self._overall.n, self._overall.total = self._done(workers), self.total + self._more
            self._overall.set_description_str(f"{self.finished} of {self.total} jobs")
            for worker, bar in zip(workers, self._bars, strict=True):
                _show(bar, worker)
        elif time.monotonic() - self._spoke >= LINE_EVERY:
            self._spoke = time.monotonic()
            at_work = ", ".join(_in_words(worker) for worker in workers if worker.job)
            left = self._time_left(workers)
            self.say(f"[{self.finished}/{self.total}] {left}; running: {at_work}")

    def progress(self, workers: Sequence[Worker]) -> Progress:
        """How far the jobs are, for a live report."""
        return Progress(
            pid=os.getpid(),
            at=time.strftime("%H:%M:%S"),
            finished=self.finished,
            total=self.total,
            left=self._time_left(workers),
            at_work=[_in_words(worker) for worker in workers if worker.job],
        )

    def close(self) -> None:
        """Remove the bars."""
        for bar in [*self._bars, self._overall]:
            if bar is not None:
                bar.close()

    def _done(self, workers: Sequence[Worker]) -> float:
        """Runs done; an unfinished run counts by the share of its steps."""
        done = float(self._runs)
        for worker in workers:
            step, total = worker.progress or (0, 0)
            if worker.job and total:
                done += min(1.0, step / total) * worker.job.length
        return done

    def _time_left(self, workers: Sequence[Worker]) -> str:
        done = self._done(workers)
        if not done:
            return "time left unknown"
        rate = (time.monotonic() - self._began) / done
        return f"about {tqdm.format_interval(rate * (self.total + self._more - done))} left"


def _in_words(worker: Worker) -> str:
    assert worker.job is not None
    if worker.progress is None:
        return worker.job.name
    step, total = worker.progress
    return f"{worker.job.name} (step {step} of {total})"


def _show(bar: "tqdm[NoReturn]", worker: Worker) -> None:
    name = worker.job.name if worker.job else "idle"
    step, total = worker.progress or (0, 0)
    if bar.desc != name or bool(bar.total) != bool(total):
        bar.bar_format = STEPS if total else NO_STEPS
        bar.reset(total=total)
        bar.set_description_str(name, refresh=False)
    bar.n = step
    bar.refresh()
