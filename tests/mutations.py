"""Put classic bugs into the code, one at a time, and see that a test goes red.

Run: make mutations (all), or .venv/bin/python tests/mutations.py -k GAE. -k takes a part of a
bug's text, of its test or of the name of its list in tests/mutation_lists. --one-in 4 takes every
bug whose file or test file changed in the last day of commits, and one in four of the others; which
ones depends on the commit, so that successive commits try them all.
A test that stays green with its bug in place tests nothing, so that is an error here.

Each bug is one replaced line of one file. Nothing on disk changes: the file's module is compiled
from the changed source in a forked process, which then runs the test.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # a script has only its own folder there
    sys.path.insert(0, str(ROOT))

from tests.mutation_lists import MUTATIONS  # noqa: E402
from tests.mutation_lists.mutation import Mutation  # noqa: E402

LONGEST = 300.0  # seconds until a run of one test counts as hung
ALL_LONGEST = 6 * LONGEST  # the same for many tests in one run
RED = 1  # pytest: tests ran and some failed; anything else (usage, collection) is no proof


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
    import lightning.pytorch.cli  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    torch.set_num_threads(1)
    gc.freeze()  # else pytest's collections walk, and so copy, all this in each child: 3 s
    assert not any(name.startswith("alignlab") for name in sys.modules)


def fork(work: Callable[[], int], log: Path) -> int:
    """Do ``work`` in a child whose output goes to ``log``; returns its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            status = work()
    except BaseException:  # nothing may return into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Session:
    """A plugin of pytest's that keeps how the tests ended."""

    status = 70  # they did not

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.status = int(exitstatus)


def run_tests(tests: Sequence[str], mutation: Mutation | None = None) -> int:
    """Pytest's exit status; with a mutation, 71 if its file was never imported."""
    import pytest

    # Installed plugins' packages are imported already, which pytest would warn of.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    finder = None
    if mutation is not None:
        finder = _Finder(mutation)
        sys.meta_path.insert(0, finder)
    session = _Session()
    words = ["-x", "--rootdir", str(ROOT), *(f"tests/{test}" for test in tests)]
    try:
        pytest.main(words, plugins=[session])
    except Exception:  # while pytest is torn down, such as a file that a failed test left open
        traceback.print_exc()
    return 71 if finder is not None and not finder.loader.used else session.status


def in_parallel(
    jobs: Sequence[tuple[int, Callable[[], int], Path]], workers: int, longest: float
) -> Iterator[tuple[int, int, float]]:
    """Run jobs (number, work, log), ``workers`` at a time, none for more than ``longest`` seconds.

    Yields (number, status, seconds) as they end.
    """
    waiting, running = list(jobs), dict[int, tuple[int, float]]()
    while waiting or running:
        while waiting and len(running) < workers:
            number, work, log = waiting.pop(0)
            running[fork(work, log)] = number, time.monotonic()
        for child, (number, began) in list(running.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            took = time.monotonic() - began
            if not done and took > longest:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            if done:
                del running[child]
                yield number, os.waitstatus_to_exitcode(status), took
        time.sleep(0.02)


def recently_changed() -> tuple[str, set[str]]:
    """The commit that is checked out, and the files that the day of commits before it changed."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    day_before = int(git("log", "-1", "--format=%ct")) - 24 * 3600
    base = git("rev-list", "-1", f"--before={day_before}", "HEAD")
    base = base or git("rev-list", "--max-parents=0", "HEAD").splitlines()[-1]
    return git("rev-parse", "HEAD"), set(git("diff", "--name-only", base, "HEAD").splitlines())


def share(
    mutations: Sequence[Mutation], one_in: int, commit: str, changed: set[str]
) -> list[Mutation]:
    """The mutations whose file or test file is in ``changed``, and one in ``one_in`` of the others.

    Which of the others are taken is a function of ``commit`` and the mutation.
    """

    def taken(mutation: Mutation) -> bool:
        files = {f"alignlab/{mutation.file}", f"tests/{mutation.test.partition('::')[0]}"}
        key = f"{commit} {mutation.file} {mutation.bug}".encode()
        drawn = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
        return bool(files & changed) or drawn % one_in == 0

    return [mutation for mutation in mutations if taken(mutation)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutations; returns 0 if every one turned its test red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "-k", default="", metavar="WORDS", help="only lists, bugs or tests that hold this"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="all bugs in recently changed files, and one in N of the others (default: all)",
    )
    args = parser.parse_args(arguments)
    chosen = [m for m in MUTATIONS if m.holds(args.k)]
    if not chosen:
        lists = dict.fromkeys(m.group for m in MUTATIONS)
        print(f"no mutation holds {args.k!r}; the lists are " + ", ".join(lists))
        return 2
    os.chdir(ROOT)
    for mutation in chosen:
        mutation.source()  # outdated ones stop here
    if args.one_in > 1:
        everything = len(chosen)
        chosen = share(chosen, args.one_in, *recently_changed())
        print(f"{len(chosen)} of {everything} bugs are tried at this commit", flush=True)
    preload()
    logs = Path(tempfile.mkdtemp(prefix="mutations-"))
    green = sorted({m.test for m in chosen})
    cut = [green[k :: args.workers] for k in range(args.workers)]
    jobs = [
        (k, lambda part=part: run_tests(part), logs / f"green{k}")
        for k, part in enumerate(cut)
        if part
    ]
    for k, status, seconds in in_parallel(jobs, args.workers, ALL_LONGEST):
        if status:
            print(f"without any bug a test fails; see {logs / f'green{k}'}")
            return 1
        print(f"{len(cut[k])} tests are green without a bug ({seconds:.0f} s)", flush=True)
    missed = 0
    jobs = [(k, lambda m=m: run_tests([m.test], m), logs / f"bug{k}") for k, m in enumerate(chosen)]
    for k, status, seconds in in_parallel(jobs, args.workers, LONGEST):
        if status == RED:
            print(f"red    {seconds:5.1f} s  {chosen[k].group}: {chosen[k].bug}", flush=True)
            continue
        missed += 1
        said = {0: "stayed green", 71: "never imported the changed file"}.get(status)
        print(f"MISSED {chosen[k].bug}: {chosen[k].test} {said or f'ended with status {status}'}; "
              f"see {logs / f'bug{k}'}", flush=True)  # fmt: skip
    print(f"{len(chosen) - missed} of {len(chosen)} bugs turn a test red")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
