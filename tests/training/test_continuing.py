"""The message after Ctrl-C."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer

from alignlab.callbacks.resume import LAST
from alignlab.training.continuing import how_to_go_on


def test_the_step_that_is_named_is_the_one_that_was_saved(tmp_path: Path) -> None:
    """Ctrl-C between a step and the next finds a step that is finished and not saved."""
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    assert how_to_go_on(trainer).startswith("interrupted before a checkpoint was saved")
    torch.save({"global_step": 200, "loops": {}}, tmp_path / LAST)
    assert how_to_go_on(trainer) == (
        f"interrupted after step 200; go on with: alignlab fit --resume {tmp_path}"
    )
