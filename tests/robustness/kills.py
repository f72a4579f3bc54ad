"""Kill runs of all objectives at some moment, continue them, and compare every bit.

Run: .venv/bin/python -m tests.robustness.kills --kills 250 --out results/robustness/kills.csv

A run is killed by SIGKILL, in turn at a random moment and aimed: just before one of the calls
that put files on the disk, or with half of a file written. Then it is continued as the pipeline
would, and must end with the weights, points, samples, tables, metrics and logs of one that ran
through. All runs are forked from this process, which has imported everything once.
"""

import argparse
import csv
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.callbacks import checkpoints
from alignlab.files import DONE, TRAIN, read_record
from alignlab.pipeline import messages, records, scheduler
from alignlab.plan import state
from alignlab.plan.experiment import Plan
from alignlab.results.csv_tables import write_table
from alignlab.results.run_records import remove_leftovers, table_of
from tests.mutations import fork
from tests.robustness.trainings import NAMES, plan_of, write_ground

COLUMNS = ("kill", "training", "aim", "survived_step", "differs", "seconds")
AGAIN = 0.25  # share of the runs that are killed once more while they continue
LONGEST = 300.0  # seconds until a training counts as hung
TIMED = ("speed/", "time/")  # what is logged of seconds, which differ from run to run
Digest = dict[str, Any]


class Bomb:
    """Counts the calls that change files, and kills the process before one of them.

    Args:
        at: Before which call, or in the middle of it; ``None`` to count only.
        count: File for the number of calls.
    """

    def __init__(self, at: int | None, count: Path) -> None:
        self.at, self.count, self.calls = at, count, 0

    def arm(self) -> None:
        """Watch the calls from now on."""
        for owner, name in (
            (os, "replace"), (os, "fsync"), (os, "truncate"), (os, "unlink"), (os, "mkdir"),
            (checkpoints, "_seal"), (Path, "write_bytes"),
        ):  # fmt: skip
            setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **settings: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                self._leave_half(call, args)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **settings)

        return watched

    @staticmethod
    def _leave_half(call: Callable[..., Any], args: Sequence[Any]) -> None:
        """What a process leaves that is killed while it writes."""
        if call.__name__ == "write_bytes":
            path, content = args
            with open(path, "wb") as file:
                file.write(content[: len(content) // 2])
        elif call.__name__ == "_seal":
            os.truncate(args[0], os.path.getsize(args[0]) // 2)


class Nobody(messages.Reporter):
    """The pipeline's process, to which nothing needs to be reported."""

    def send(self, **message: Any) -> None: ...

    def say(self, line: str) -> None:
        print(line, flush=True)


def do_what_is_left(plan: Plan, bomb: Bomb) -> int:
    """As ``alignlab run --only`` does, without workers; in a process of its own."""
    from alignlab.pipeline.jobs import carry_out

    bomb.arm()
    remove_leftovers(plan.results)
    (name,) = plan.jobs
    todo = state.what_to_do(plan, only=name)
    for job in todo.unmerged:
        records.merge(plan, job)
    for job in todo.jobs:
        carry_out(scheduler.message(plan, job, "commit", fresh=False), Nobody(None))
        records.record(plan, job)
    bomb.count.write_text(str(bomb.calls))
    return 0


def wait(child: int, seconds: float) -> int | None:
    """The child's exit status (negative: its signal); ``None`` if it is still at work."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def run(plan: Plan, *, at: int | None = None, seconds: float = LONGEST) -> int:
    """Do what is left of a plan, killed at the call ``at`` or after ``seconds``; exit status."""
    plan.results.mkdir(parents=True, exist_ok=True)
    log, count = plan.results / "log.txt", plan.results / "count.txt"
    child = fork(lambda: do_what_is_left(plan, Bomb(at, count)), log)
    status = wait(child, seconds)
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = wait(child, LONGEST)
        assert status is not None
    return status


def digest(plan: Plan) -> Digest:
    """All that a finished training leaves, but for times: part -> content or hash."""
    (job,) = plan.jobs.values()
    folder = plan.folder(job)
    done = read_record(folder / DONE)
    assert done is not None, f"not done; see {plan.results}/log.txt"
    own = [path for path in folder.rglob("*") if path.is_file()]
    weights = [p for p in own if p.suffix in (".safetensors", ".bin", ".jinja")]
    samples = [*folder.rglob("points/*.texts.jsonl"), *folder.rglob("points/*.parquet")]
    found: Digest = {
        "weights": _hashes(weights, folder),
        "points": [{k: v for k, v in row.items() if k != "seconds"} for row in done["points"]],
        "samples": _hashes(samples, folder),
        "metrics": done["metrics"],
        "files": sorted(p.relative_to(folder).as_posix() for p in own if "tfevents" not in p.name),
        "logs": _scalars(folder / TRAIN),
        "tables": {},
    }
    if job.objective is not None:
        points = (plan.results / state.POINTS).read_text().splitlines()
        found["tables"] = {
            "points.csv": [line.rpartition(",")[0] for line in points],
            "prompts": _hashes([table_of(plan.results, job.name)], plan.results),
        }
    return found


def _hashes(paths: Sequence[Path], root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def _scalars(train: Path) -> list[list[Any]]:
    """Everything in the logs but seconds, each entry as often as it occurs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(train), size_guidance={"scalars": 0, "tensors": 0})
    log.Reload()
    found = [
        ["events", tag, event.step, event.value]
        for tag in log.Tags()["scalars"]
        if not tag.startswith(TIMED)
        for event in log.Scalars(tag)
    ]
    with (train / "table" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            kept = {k: v for k, v in row.items() if v and not k.startswith(TIMED)}
            found += [["table", k, int(row["step"]), float(v)] for k, v in kept.items()]
    return sorted(found)


def differences(whole: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The parts in which two runs end differently."""
    return [part for part in whole if whole[part] != other[part]]


def kill_all(kills: int, folder: Path, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Kill and continue ``kills`` runs; yields a row of ``COLUMNS`` for each.

    Args:
        kills: How many.
        folder: Where they leave their files.
        seed: Of the moments.
    """
    import_everything()
    ground = folder / "ground"
    write_ground(ground)
    wholes: dict[str, tuple[Digest, int, float]] = {}
    for number in range(kills):
        rng = random.Random(f"{seed}/{number}")
        name = NAMES[number % len(NAMES)]
        if name not in wholes:
            wholes[name] = _whole(plan_of(name, ground, folder / name))
        whole, calls, took = wholes[name]
        began = time.monotonic()
        plan = plan_of(name, ground, folder / f"{number}-{name}")
        aim = _kill(plan, rng, calls, took, aimed=(number + number // len(NAMES)) % 2 == 1)
        survived = _survived(plan)
        if rng.random() < AGAIN:
            aim += f", then {_kill(plan, rng, calls, took, aimed=rng.random() < 0.5)}"
        status = run(plan)
        differs = differences(whole, digest(plan)) if status == 0 else [f"status {status}"]
        differs += [str(path) for path in plan.results.rglob("*.tmp")]
        seconds = f"{time.monotonic() - began:.1f}"
        row = [number, name, aim, survived, "; ".join(differs), seconds]
        said = f"DIFFERS: {differs}; see {plan.results}" if differs else "the same"
        print(f"{number + 1}/{kills} {name}, killed {aim}: {said}", flush=True)
        if not differs:
            shutil.rmtree(plan.results)
        yield dict(zip(COLUMNS, row, strict=True))


def _whole(plan: Plan) -> tuple[Digest, int, float]:
    """How a run ends that is not killed, how often it changes files, and its seconds."""
    began = time.monotonic()
    status = run(plan)
    took = time.monotonic() - began
    if status:
        raise RuntimeError((plan.results / "log.txt").read_text())
    return digest(plan), int((plan.results / "count.txt").read_text()), took


def _kill(plan: Plan, rng: random.Random, calls: int, took: float, *, aimed: bool) -> str:
    """Kill a run; return how, in words."""
    if aimed:
        at = rng.randint(1, calls)
        status = run(plan, at=at)
        words = f"at file change {at} of {calls}"
    else:
        seconds = rng.uniform(0, took)
        status = run(plan, seconds=seconds)
        words = f"after {seconds:.2f} of {took:.2f} s"
    return words if status == -signal.SIGKILL else f"{words} (had ended)"


def _survived(plan: Plan) -> str:
    """The step that a killed training can go on from; empty where it starts over."""
    (job,) = plan.jobs.values()
    if (plan.folder(job) / DONE).exists():
        return "done"
    found, _ = checkpoints.newest(plan.folder(job) / TRAIN)
    return "" if found is None else str(checkpoints.read(found)["global_step"])


def import_everything() -> None:
    """Import what a training needs, once, before forking."""
    import gc

    import torch
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: F401
    from tensorboard.backend.event_processing import event_accumulator  # noqa: F401
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns 0 if every training ended the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a table of all kills", metavar="FILE.csv")
    args = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    rows = []
    for row in kill_all(args.kills, folder, args.seed):
        rows.append(row)
        if args.out is not None:
            write_table(args.out, rows)
    wrong = [row for row in rows if row["differs"]]
    print(f"{len(rows) - len(wrong)} of {len(rows)} killed runs ended the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
