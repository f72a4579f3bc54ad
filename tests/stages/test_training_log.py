from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from alignlab.errors import DataError
from alignlab.stages.training_log import write_curve


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_curve_of_a_training_that_was_continued(tmp_path: Path, order: str) -> None:
    """Two event files, whatever their names; a step that was logged twice counts as it was last."""
    for name, steps in (("", (0, 10, 20)), (".later", (20, 30))):
        with SummaryWriter(str(tmp_path / "train"), filename_suffix=name) as log:
            for step in steps:
                log.add_scalar("train/loss", step / 4 + (0.5 if name else 0), step)
            log.add_scalar("val/loss", 7.0, steps[-1])
            log.add_scalar("lr", 1.0, steps[-1])
    files = sorted((tmp_path / "train").iterdir(), key=lambda f: f.name.endswith(".later"))
    for file, letter in zip(files, order, strict=True):
        file.rename(file.with_name(f"events.out.tfevents.{letter}"))
    write_curve(out=tmp_path / "out", run=str(tmp_path))
    assert (tmp_path / "out" / "curve.csv").read_text() == (
        "step,train/loss,val/loss\n0,0.000000,\n10,2.500000,\n20,5.500000,7.000000\n"
        "30,8.000000,7.000000\n"
    )


def test_figures_that_were_not_logged(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "train")) as log:
        log.add_scalar("train/loss", 1.0, 0)
    with pytest.raises(DataError, match=r"no val/loss in the log. Logged: train/loss"):
        write_curve(out=tmp_path / "out", run=str(tmp_path))
