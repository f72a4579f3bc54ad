"""What a killed process left behind in a results folder."""

import shutil
from pathlib import Path

from alignlab.files import DONE, LAST, PREVIOUS, TEMP_SUFFIX
from alignlab.pipeline.jobs import TRAIN


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left under a results folder.

    That is half-written files, and checkpoints of trainings that are finished.
    """
    for done in folder.glob(f"stages/*/*/{DONE}"):
        for name in (LAST, PREVIOUS):
            (done.parent / TRAIN / name).unlink(missing_ok=True)
    for path in list(folder.rglob(f"*{TEMP_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
