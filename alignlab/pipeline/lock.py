"""One pipeline at a time per results folder; a killed process cannot leave the lock behind.

The lock belongs to an open file, which workers inherit: it is free when the last of them has ended,
not when their parent has been killed. The ``filelock`` package has no locks that are inherited.
"""

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.files import check_writable

PATIENCE = 30.0  # seconds that workers of a killed run may take to notice and stop


@contextmanager
def results_lock(
    results: Path, patience: float = PATIENCE, *, in_turn: bool = False
) -> Iterator[int]:
    """Hold ``RESULTS_DIR/.lock``; yields its file descriptor.

    The kernel drops the lock when the last process that has it open ends, however it ends. If
    another run holds it and is alive, this one is refused at once. If only workers of a killed run
    hold it, this one waits for them, because they stop within seconds.

    Args:
        results: Folder.
        patience: Seconds to wait for such workers.
        in_turn: Wait without limit for a run that is alive, too: both want the same output.

    Raises:
        ConfigError: Another run uses the folder, or the folder cannot be made.
    """
    deadline = math.inf if in_turn else time.monotonic() + patience
    fd = _opened(results)
    try:
        _take(fd, results, deadline, in_turn)
        while os.fstat(fd).st_nlink == 0:  # the run before was refused, and deleted its folder
            os.close(fd)
            fd = _opened(results)
            _take(fd, results, deadline, in_turn)
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield fd
    finally:
        os.close(fd)


def check_folder(folder: Path) -> None:
    """Refuse a path that is, or goes through, a file; creates nothing.

    Raises:
        ConfigError: The path is not a folder.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{folder}: {path} is a file. Name a folder.")


def make_folder(folder: Path) -> None:
    """Make ``folder``, which results are to be written to.

    Raises:
        ConfigError: It is a file, or it cannot be written.
    """
    check_folder(folder)
    for path in (folder, *(folder / name for name in ("stages", "points", "configs"))):
        if path == folder or path.exists():
            check_writable(path)


def _opened(results: Path) -> int:
    make_folder(results)
    return os.open(results / ".lock", os.O_RDWR | os.O_CREAT, 0o644)


def _take(fd: int, results: Path, deadline: float, in_turn: bool) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode()
            if (_alive(holder) and not in_turn) or time.monotonic() > deadline:
                raise ConfigError(
                    f"{results} is in use by another run (process {holder or 'unknown'}). "
                    "Wait for it to end, or give this run its own --results."
                ) from None
            time.sleep(0.1)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
