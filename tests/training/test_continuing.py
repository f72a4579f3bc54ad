"""The message after Ctrl-C, and whose weights are read."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from alignlab.callbacks.checkpoints import PREVIOUS
from alignlab.callbacks.resume import LAST
from alignlab.errors import ConfigError
from alignlab.training.continuing import how_to_go_on, of_objective


def test_the_step_that_is_named_is_the_one_that_was_saved(tmp_path: Path) -> None:
    """Ctrl-C between a step and the next finds a step that is finished and not saved."""
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    assert how_to_go_on(trainer).startswith("interrupted before a checkpoint was saved")
    torch.save({"global_step": 200, "loops": {}}, tmp_path / LAST)
    assert how_to_go_on(trainer) == (
        f"interrupted after step 200; continue with: alignlab fit --resume {tmp_path}"
    )


DPO, SIMPO = "alignlab.objectives.dpo.DPO", "alignlab.objectives.simpo.SimPO"


def save(path: Path, objective: str | None) -> None:
    """A checkpoint that says which objective trained it, if it is given."""
    identity = {"model.class_path": [f'"{objective}"'] * 2, "model.init_args.beta": ["1", "1"]}
    callbacks = {} if objective is None else {"Resume": {"identity": identity}}
    torch.save({"global_step": 7, "loops": {}, "callbacks": callbacks}, path)


def test_weights_of_another_objective_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / LAST
    save(last, SIMPO)
    assert of_objective(last, SIMPO) == last  # whatever its beta
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError) as error:
        of_objective(last, DPO)
    assert str(error.value) == (
        f"{last} was trained with {SIMPO}, and model.class_path is {DPO}. Give the config that it "
        "was trained with, or a checkpoint of this objective."
    )
    save(last, None)
    assert of_objective(last, DPO) == last
    assert "does not record its config" in capsys.readouterr().err


def test_the_checkpoint_before_a_damaged_one_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LAST).write_bytes(b"half")
    save(tmp_path / PREVIOUS, DPO)
    assert of_objective(tmp_path / LAST, DPO) == tmp_path / PREVIOUS
    assert f"{PREVIOUS} of step 7 is taken instead" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"gone\.ckpt: no such file"):
        of_objective(tmp_path / "gone.ckpt", DPO)
