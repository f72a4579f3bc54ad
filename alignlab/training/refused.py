"""Leave no files of a run that ends before its first batch: there is nothing to continue."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer

from alignlab.callbacks.journal import ROWS
from alignlab.callbacks.resume import Resume
from alignlab.files import Made
from alignlab.results.run_folder import CONFIG, ORIGIN


@contextlib.contextmanager
def nothing_left(trainer: Trainer, resume: Resume) -> Iterator[None]:
    """Delete what a run wrote, if an error or a signal ends it before its first batch.

    Lightning opens the logs and saves the config before the checks that need the model on its
    device: the probe's and the doctor's. Several processes leave their files: each reads there why
    another one failed.

    Args:
        trainer: Before its training.
        resume: The trainer's.
    """
    if trainer.world_size > 1:
        yield
        return
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    made = Made(folder, (CONFIG, ROWS, ORIGIN))
    try:
        yield
    except BaseException:
        if not resume.begun:
            made.remove()
        raise
