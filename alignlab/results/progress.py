"""How far a call of ``alignlab run`` or ``sweep`` is: a small file that a live report reads."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from alignlab.files import atomic_write
from alignlab.results.run_folder import STAGES

NAME = "progress.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a call is.

    Args:
        pid: The process that makes the runs.
        at: Time of day, such as ``14:03:20``.
        finished: Jobs that are done.
        total: All jobs of the call.
        left: Time left, in words.
        at_work: What is being done, a phrase for each worker.
        failed: Name of a job -> why it failed or diverged.
    """

    pid: int
    at: str
    finished: int
    total: int
    left: str
    at_work: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether its process still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it is another user's
        return True


def progress_file(results: Path) -> Path:
    """Where a call writes how far it is."""
    return results / STAGES / NAME


def write_progress(results: Path, progress: Progress) -> None:
    """Replace what was written before."""
    atomic_write(progress_file(results), json.dumps(asdict(progress), indent=1).encode())


def read_progress(results: Path) -> Progress | None:
    """What the call at work in ``results`` wrote last; ``None`` if there is no such call."""
    try:
        found = Progress(**json.loads(progress_file(results).read_bytes()))
        return found if found.is_alive() else None
    except (OSError, ValueError, TypeError):
        return None
