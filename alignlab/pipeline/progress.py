"""What the user sees while a pipeline runs: bars, or plain lines without a terminal."""

import sys
import time
from collections.abc import Iterable
from typing import NoReturn

from tqdm import tqdm

from alignlab.pipeline.workers import Worker

LINE_EVERY = 30.0  # seconds between two lines where there is no terminal


class Display:
    """Overall and per-worker progress on standard error.

    Args:
        total: Jobs to do.
        workers: Workers at a time.
    """

    def __init__(self, total: int, workers: int) -> None:
        self.total = total
        self.finished = 0
        self._began = self._spoke = time.monotonic()
        self._bars: list[tqdm[NoReturn]] = []
        if sys.stderr.isatty():
            self._bars = [
                tqdm(total=0, position=place + 1, leave=False, desc="idle")
                for place in range(workers)
            ]
            self._bars.append(tqdm(total=total, position=0, desc="jobs", unit="job"))

    def say(self, line: str) -> None:
        """A line that stays."""
        tqdm.write(line, file=sys.stderr)

    def finished_one(self, name: str, seconds: float) -> None:
        """A job is finished."""
        self.finished += 1
        if self._bars:
            self._bars[-1].update()
        self.say(f"[{self.finished}/{self.total}] {name} done in {seconds:.0f} s")

    def update(self, workers: Iterable[Worker]) -> None:
        """Show where every worker stands."""
        workers = list(workers)
        if self._bars:
            for worker, bar in zip(workers, self._bars, strict=False):
                _show(bar, worker)
        elif time.monotonic() - self._spoke >= LINE_EVERY:
            self._spoke = time.monotonic()
            at_work = ", ".join(_in_words(worker) for worker in workers if worker.job)
            left = self._time_left(workers)
            self.say(f"[{self.finished}/{self.total}] {left}; at work: {at_work}")

    def close(self) -> None:
        """Take the bars away."""
        for bar in self._bars:
            bar.close()

    def _time_left(self, workers: Iterable[Worker]) -> str:
        steps = [worker.progress for worker in workers if worker.job and worker.progress]
        done = self.finished + sum(step / total for step, total in steps if total)
        if not done:
            return "time left unknown"
        rate = (time.monotonic() - self._began) / done
        return f"about {tqdm.format_interval(rate * (self.total - done))} left"


def _in_words(worker: Worker) -> str:
    assert worker.job is not None
    if worker.progress is None:
        return worker.job.name
    step, total = worker.progress
    return f"{worker.job.name} (step {step} of {total})"


def _show(bar: "tqdm[NoReturn]", worker: Worker) -> None:
    name = worker.job.name if worker.job else "idle"
    step, total = worker.progress or (0, 0)
    if bar.desc.removesuffix(": ") != name:
        bar.reset(total=total or None)
        bar.set_description(name, refresh=False)
    bar.total = total or None
    bar.n = step
    bar.refresh()
