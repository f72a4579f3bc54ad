"""Put classic bugs into the code, one at a time, and see that a test goes red.

Run: make mutations (all), or .venv/bin/python tests/mutations.py -k gae. Two minutes on two cores.
A test that stays green with its bug in place tests nothing, so that is an error here.

Each bug is one replaced line of one file. Nothing on disk changes: the file's module is compiled
from the changed source in a forked process, which then runs the test.
"""

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[1]
LONGEST = 300.0  # seconds until a run counts as hung
RED = 1  # pytest: tests ran and some failed; anything else (usage, collection) is no proof


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug.

    Args:
        bug: What goes wrong, in a few words.
        file: The file it is put in, under ``alignlab/``.
        old: Source that stands there exactly once.
        new: What it becomes.
        test: Node id of a test, under ``tests/``, that must fail.
    """

    bug: str
    file: str
    old: str
    new: str
    test: str

    def source(self) -> str:
        """The changed source.

        Raises:
            LookupError: ``old`` does not stand there exactly once: the code has moved on.
        """
        text = (ROOT / "alignlab" / self.file).read_text()
        if text.count(self.old) != 1:
            raise LookupError(
                f"{self.bug}: {self.old!r} stands {text.count(self.old)} times in "
                f"alignlab/{self.file}. Bring the mutation up to date."
            )
        return text.replace(self.old, self.new)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from changed source, and remembers that it did."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source, self.used = source, False

    def get_code(self, fullname: str) -> CodeType:
        self.used = True
        return compile(self.source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutation: Mutation) -> None:
        path = ROOT / "alignlab" / mutation.file
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.loader = _Loader(self.name, str(path), mutation.source())

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader
        )


def preload() -> None:
    """Import what is slow once, before forking; nothing of alignlab."""
    import lightning.pytorch  # noqa: F401
    import peft  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    assert not any(name.startswith("alignlab") for name in sys.modules)


def fork(work: Callable[[], int], log: Path) -> int:
    """Do ``work`` in a child whose output goes to ``log``; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            status = work()
    except BaseException:  # nothing may return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_tests(tests: Sequence[str], mutation: Mutation | None = None) -> int:
    """Pytest's exit status; with a mutation, 71 if its file was never imported."""
    import pytest

    # Installed plugins' packages are imported already, which pytest would warn of.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    finder = None
    if mutation is not None:
        finder = _Finder(mutation)
        sys.meta_path.insert(0, finder)
    status = pytest.main(["-x", "--rootdir", str(ROOT), *(f"tests/{test}" for test in tests)])
    return 71 if finder is not None and not finder.loader.used else int(status)


def in_parallel(jobs: Sequence[tuple[int, Callable[[], int], Path]], workers: int) -> Iterator[
    tuple[int, int, float]
]:  # fmt: skip
    """Run jobs (number, work, log), ``workers`` at a time; yields (number, status, seconds)."""
    waiting, running = list(jobs), dict[int, tuple[int, float]]()
    while waiting or running:
        while waiting and len(running) < workers:
            number, work, log = waiting.pop(0)
            running[fork(work, log)] = number, time.monotonic()
        for child, (number, began) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            took = time.monotonic() - began
            if not done and took > LONGEST:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            if done:
                del running[child]
                yield number, os.waitstatus_to_exitcode(status), took
        time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutations; returns 0 if every one turned its test red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", default="", metavar="WORDS", help="only bugs or tests that hold this")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args(arguments)
    chosen = [m for m in MUTATIONS if args.k in m.bug or args.k in m.test]
    if not chosen:
        print(f"no mutation holds {args.k!r}; there are: " + "; ".join(m.bug for m in MUTATIONS))
        return 2
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for mutation in chosen:
        mutation.source()  # outdated ones stop here
    preload()
    logs = Path(tempfile.mkdtemp(prefix="mutations-"))
    green = sorted({m.test for m in chosen})
    cut = [green[k :: args.workers] for k in range(args.workers)]
    jobs = [
        (k, lambda part=part: run_tests(part), logs / f"green{k}")
        for k, part in enumerate(cut)
        if part
    ]
    for k, status, seconds in in_parallel(jobs, args.workers):
        if status:
            print(f"without any bug a test fails; see {logs / f'green{k}'}")
            return 1
        print(f"{len(cut[k])} tests are green without a bug ({seconds:.0f} s)", flush=True)
    missed = 0
    jobs = [(k, lambda m=m: run_tests([m.test], m), logs / f"bug{k}") for k, m in enumerate(chosen)]
    for k, status, seconds in in_parallel(jobs, args.workers):
        if status == RED:
            print(f"red    {seconds:5.1f} s  {chosen[k].bug}", flush=True)
            continue
        missed += 1
        said = {0: "stayed green", 71: "never imported the changed file"}.get(status)
        print(f"MISSED {chosen[k].bug}: {chosen[k].test} {said or f'ended with status {status}'}; "
              f"see {logs / f'bug{k}'}", flush=True)  # fmt: skip
    print(f"{len(chosen) - missed} of {len(chosen)} bugs turn a test red")
    return 1 if missed else 0


MUTATIONS = (
    Mutation(
        "DPO compares with itself instead of the reference",
        "objectives/dpo.py",
        "rejected_rewards = beta * (policy_rejected_logps - ref_rejected_logps)",
        "rejected_rewards = beta * policy_rejected_logps",
        "objectives/test_dpo.py::test_value_worked_by_hand",
    ),
)

if __name__ == "__main__":
    sys.exit(main())
