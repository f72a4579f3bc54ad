"""What a killed process left behind in a results folder."""

import shutil
from pathlib import Path

from alignlab.files import TEMP_SUFFIX


def remove_leftovers(folder: Path) -> None:
    """Delete half-written temporary files that a killed process left under ``folder``."""
    for path in list(folder.rglob(f"*{TEMP_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
