"""A side as a process that has imported what it needs, and forks for every run.

So every run is a process of its own, its memory counts from after the imports, and nobody waits
for imports twice.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sides.work import Case

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
M_MMAP_THRESHOLD = -3  # of glibc's mallopt


@contextmanager
def started(name: str) -> Iterator["Side"]:
    """A side that is ended afterwards.

    Args:
        name: ``alignlab``, ``trl``, ``plain``: a module ``sides.{name}_side``.
    """
    code = f"from sides.process import serve; serve({name!r})"
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Side(name, process, errors)
        finally:
            process.kill()
            process.communicate()


@dataclass
class Side:
    """A running process of one side, and what it says when something fails."""

    name: str
    process: "subprocess.Popen[str]"
    errors: IO[str]

    def run(self, folder: Path, *, exact_memory: bool = False) -> dict[str, Any]:
        """Run the case in ``folder``.

        Args:
            folder: Holds ``case.json`` and the model.
            exact_memory: Freed memory goes back at once, so that peaks mean something. It costs a
                third of the speed.

        Raises:
            RuntimeError: The run failed; holds the end of what it said.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(folder), exact_memory]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if answer.strip() != "0":
            self.errors.seek(0)
            raise RuntimeError(f"{self.name}: {self.errors.read()[-3000:]}")
        return json.loads((folder / "result.json").read_text())


def serve(name: str) -> None:
    """Import a side, then run a case for every line on standard input."""
    import torch

    torch.set_num_threads(1)
    module = importlib.import_module(f"sides.{name}_side")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    for line in sys.stdin:
        folder, exact_memory = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(module, Path(folder), exact_memory))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _run(module: Any, folder: Path, exact_memory: bool) -> int:
    """The run itself, in its own process; its exit status."""
    try:
        if exact_memory:
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 65536)
        result = module.run(Case.load(folder / "case.json"), folder)
        (folder / "result.json").write_text(json.dumps(result))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0
