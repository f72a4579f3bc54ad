"""Seconds from asking Optuna for a trial to its first optimizer step, in a warm worker.

    python benchmarks/first_step.py SWEEP.yaml [--trials 6]

The experiment's inputs should stand (call ``alignlab sweep`` once); results go to a folder of this
script's own. The first trials warm the worker; the median of the others counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from alignlab.pipeline.worker_pool import Worker
from alignlab.plan.experiment import Job
from alignlab.sweep import run_sweep
from alignlab.sweep.study import RunningTrial, Slots

WARMING = 2  # trials that still import, and compile what PyTorch compiles at first use


class Stopwatch:
    """Notes when trials are asked for and when they first report a step."""

    def __init__(self, trials: int) -> None:
        self.trials = trials
        self.asked = 0.0
        self.seconds: list[float] = []

    def wrap(self) -> None:
        """Put itself between the sweep's classes."""
        ask, give = Slots.next, Worker.start

        def asks(slots: Slots) -> RunningTrial | None:
            if len(self.seconds) >= self.trials:
                return None
            self.asked = time.monotonic()
            return ask(slots)

        def gives(worker: Worker, job: Job, message: Any) -> None:
            worker.waits_since = self.asked if job.objective else None  # type: ignore[attr-defined]
            give(worker, job, message)

        def reports(worker: Worker, name: str, value: Any) -> None:
            since = getattr(worker, "waits_since", None)
            if name == "progress" and value is not None and since is not None:
                self.seconds.append(time.monotonic() - since)
                object.__setattr__(worker, "waits_since", None)
            object.__setattr__(worker, name, value)

        Slots.next, Worker.start = asks, gives  # type: ignore[method-assign]
        Worker.__setattr__ = reports  # type: ignore[method-assign, assignment]


def main() -> None:
    """Run some trials and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--trials", type=int, default=6)
    args = parser.parse_args()
    stopwatch = Stopwatch(args.trials)
    stopwatch.wrap()
    with tempfile.TemporaryDirectory() as name:
        run_sweep(args.sweep, results=Path(name), workers=1)
    warm = stopwatch.seconds[WARMING:]
    print(f"ask to first step: median {statistics.median(warm):.2f} s of {len(warm)} trials")
    print("all: " + ", ".join(f"{seconds:.2f}" for seconds in stopwatch.seconds))


if __name__ == "__main__":
    main()
