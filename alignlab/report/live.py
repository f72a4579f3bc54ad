"""``alignlab frontier DIR --watch``: the report of a folder, drawn again while runs are made."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from alignlab.errors import ConfigError, DataError
from alignlab.report.gather import Findings
from alignlab.report.page import write_page
from alignlab.results.progress import read_progress
from alignlab.results.run_records import POINTS

PAUSE = 10.0  # seconds between two looks at the folder


def watch(
    folder: Path,
    page: Path,
    gather_again: Callable[[], Findings],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write ``page`` with the present frontier and progress until no call is at work in ``folder``.

    The page is the only file that is written. A browser that has opened it, from disk too, reads it
    again by itself. When the call ends, its own report replaces the live one; if there is none,
    because the call was stopped, the page is written once more without the progress.

    Args:
        folder: Results folder of the call.
        page: The report.
        gather_again: Reads the folder and builds the frontier.
        sleep: Waits between two looks.

    Raises:
        ConfigError: No call is at work.
    """
    live = read_progress(folder)
    if live is None:
        raise ConfigError(
            f"--watch: no 'alignlab run' or 'alignlab sweep' is at work in {folder}. Start one "
            "first (it writes its progress after a few seconds), or leave --watch out."
        )
    print(f"Open {page} in a browser. Ctrl+C ends the drawing, not the runs.", flush=True)
    found: Findings | None = None
    seen, ours, said = -1, -1, ""
    while live is not None:
        changed = _changed(folder / POINTS)
        if changed != seen:
            try:
                found, seen = gather_again(), changed
            except DataError as error:  # nothing to draw yet, or a table was being replaced
                if str(error) != said:
                    said = str(error)
                    print(f"Waiting: {said}", flush=True)
        if found is not None:
            write_page(page, replace(found, live=live))
            ours = _changed(page)
        sleep(PAUSE)
        live = read_progress(folder)
    if found is not None and ours == _changed(page):
        write_page(page, replace(gather_again(), live=None))


def _changed(path: Path) -> int:
    """When a file was changed last, in nanoseconds; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0
